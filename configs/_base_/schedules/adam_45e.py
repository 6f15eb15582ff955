# Adam whose large eps makes its steps those of plain momentum, at a constant rate, 45 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=4e-3, eps=1.0, weight_decay=0))
param_scheduler = []
train_cfg = dict(type='ResumableTrainLoop', max_epochs=45, val_interval=5)
val_cfg = dict()
test_cfg = dict()
