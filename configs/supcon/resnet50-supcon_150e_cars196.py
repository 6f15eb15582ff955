_base_ = ['../_base_/methods/supcon.py', '../_base_/datasets/cars196_224.py']
train_dataloader = dict(batch_size=112, sampler=dict(m=4, batch_size=112))
train_cfg = dict(max_epochs=150)
