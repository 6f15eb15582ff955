# Adam with eps 0.01, a tenth of the rate after 0.38 and after 0.78 of the run, 50 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, eps=0.01, weight_decay=1e-4))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='MultiStepLR',
                        milestones=[0.38, 0.78], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=50, val_interval=5)
val_cfg = dict()
test_cfg = dict()
