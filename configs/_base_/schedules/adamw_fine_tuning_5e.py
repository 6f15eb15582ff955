# AdamW for a network that was trained before: a warm-up over a tenth of the run and a cosine to its
# end, and rates that fall to a tenth from the last layer of the backbone to its first.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LayerRatesConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-2),
    paramwise_cfg=dict(first_layer_mult=0.1))
param_scheduler = [
    dict(type='ShareOfRun', by_epoch=False, schedule='LinearLR', stop=0.1, start_factor=0.1),
    dict(type='ShareOfRun', by_epoch=False, schedule='CosineAnnealingLR', begin=0.1,
         eta_min_ratio=1e-3)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()
