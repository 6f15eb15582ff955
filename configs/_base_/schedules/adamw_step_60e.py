# AdamW, half the rate every sixth of the run, 60 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='StepLR', step_size=1 / 6,
                        gamma=0.5)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=60, val_interval=5)
val_cfg = dict()
test_cfg = dict()
