# Adam with eps 0.01, a tenth of the rate after 19 and after 39 of 50 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, eps=0.01, weight_decay=1e-4))
param_scheduler = [dict(type='MultiStepLR', milestones=[19, 39], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=50, val_interval=5)
val_cfg = dict()
test_cfg = dict()
