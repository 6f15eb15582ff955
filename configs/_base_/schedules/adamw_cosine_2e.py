# AdamW with a short linear warm-up and cosine decay, stepped every iteration, 2 epochs. Weights
# decay, norms and class centres do not; `lr_mult` of a part is kept throughout.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0,
                       custom_keys=dict(head=dict(decay_mult=0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=0.3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1.7, begin=0.3, end=2, eta_min_ratio=1e-3,
         convert_to_iter_based=True)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
