# SGD with momentum, a tenth of the rate after 16/31 of the run, 31 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-2, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='MultiStepLR',
                        milestones=[16 / 31], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=31, val_interval=5)
val_cfg = dict()
test_cfg = dict()
