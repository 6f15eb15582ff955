# AdamW, half the rate every 10 of 60 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4))
param_scheduler = [dict(type='StepLR', step_size=10, gamma=0.5)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=60, val_interval=5)
val_cfg = dict()
test_cfg = dict()
