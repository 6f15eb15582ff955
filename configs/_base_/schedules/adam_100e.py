# Adam at a constant, small rate, 100 epochs; validated every 5.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-5, weight_decay=4e-4))
param_scheduler = []
train_cfg = dict(type='ResumableTrainLoop', max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
