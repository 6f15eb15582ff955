# AdamW, warm-up for a tenth of the first epoch's worth and cosine decay, every iteration, 6 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=5e-2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=5, begin=1, end=6, eta_min=1e-6,
         convert_to_iter_based=True)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=6, val_interval=1)
val_cfg = dict()
test_cfg = dict()
