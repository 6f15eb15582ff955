_base_ = ['../_base_/methods/subcenter_arcface.py', '../_base_/datasets/cars196_224.py']
model = dict(head=dict(loss=dict(num_classes=98, sub_centers=3)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
train_cfg = dict(max_epochs=150)
