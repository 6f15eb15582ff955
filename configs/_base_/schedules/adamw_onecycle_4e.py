# AdamW under one cycle of the learning rate over the run, 4 epochs. Weights decay, norms and class
# centres do not.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0,
                       custom_keys=dict(head=dict(decay_mult=0))))
param_scheduler = [
    dict(type='ShareOfRun', by_epoch=False, schedule='OneCycleLR', eta_max=3e-3, total_steps=1.0,
         pct_start=0.15, div_factor=10, final_div_factor=1000)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=4, val_interval=1)
val_cfg = dict()
test_cfg = dict()
