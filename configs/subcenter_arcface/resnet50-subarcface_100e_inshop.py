_base_ = ['../_base_/methods/subcenter_arcface.py', '../_base_/datasets/inshop_224.py']
model = dict(head=dict(loss=dict(num_classes=3997, sub_centers=2)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
