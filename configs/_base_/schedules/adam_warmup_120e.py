# Adam with a linear warm-up of 10 epochs, a tenth of the rate after 40 and after 70 of 120 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=3.5e-4, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=10),
    dict(type='MultiStepLR', milestones=[40, 70], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=120, val_interval=10)
val_cfg = dict()
test_cfg = dict()
