_base_ = ['../_base_/methods/proxy_nca.py', '../_base_/datasets/cars196_224.py']
# The values are those for CUB-200.
model = dict(head=dict(loss=dict(num_classes=98)))
train_dataloader = dict(batch_size=32, sampler=dict(m=4, batch_size=32))
