# Adam with a linear warm-up in ten steps over a twelfth of the run, a tenth of the rate after four
# twelfths and after seven, 120 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=3.5e-4, weight_decay=5e-4))
param_scheduler = [
    dict(type='ShareOfRun', by_epoch=False, schedule='LinearLR', stop=1 / 12, start_factor=0.01,
         ticks=120),
    dict(type='ShareOfRun', by_epoch=False, schedule='MultiStepLR', milestones=[4 / 12, 7 / 12],
         gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=120, val_interval=10)
val_cfg = dict()
test_cfg = dict()
