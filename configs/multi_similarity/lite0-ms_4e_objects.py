# Objects, from the default encoder's weights; a run of four epochs takes minutes.
_base_ = ['../_base_/methods/fine_tuning.py', '../_base_/datasets/objects_96.py']
train_cfg = dict(max_epochs=4, val_interval=4)
