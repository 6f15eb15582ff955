# AdamW with a linear warm-up over 0.15 of the run and a cosine decay to its end, 2 epochs. Weights
# decay, norms and class centres do not; `lr_mult` of a part is kept throughout.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0,
                       custom_keys=dict(head=dict(decay_mult=0))))
param_scheduler = [
    dict(type='ShareOfRun', by_epoch=False, schedule='LinearLR', stop=0.15, start_factor=0.1),
    dict(type='ShareOfRun', by_epoch=False, schedule='CosineAnnealingLR', begin=0.15,
         eta_min_ratio=1e-3)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
