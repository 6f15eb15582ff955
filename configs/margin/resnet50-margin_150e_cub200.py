_base_ = ['../_base_/methods/margin.py', '../_base_/datasets/cub200_224.py']
model = dict(head=dict(loss=dict(num_classes=100)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
train_cfg = dict(max_epochs=150)
