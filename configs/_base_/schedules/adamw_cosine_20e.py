# AdamW with a linear warm-up over a twentieth of the run and a cosine decay to its end, 20 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=1e-2))
param_scheduler = [
    dict(type='ShareOfRun', by_epoch=False, schedule='LinearLR', stop=0.05, start_factor=0.01),
    dict(type='ShareOfRun', by_epoch=False, schedule='CosineAnnealingLR', begin=0.05,
         eta_min=1e-6)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()
