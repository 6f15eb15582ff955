_base_ = ['../_base_/methods/circle.py', '../_base_/datasets/cub200_224.py']
train_dataloader = dict(batch_size=80, sampler=dict(m=5, batch_size=80))
train_cfg = dict(max_epochs=150)
