# Adam, a tenth of the rate after three quarters of the run, 40 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=5e-4))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='MultiStepLR',
                        milestones=[0.75], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=40, val_interval=5)
val_cfg = dict()
test_cfg = dict()
