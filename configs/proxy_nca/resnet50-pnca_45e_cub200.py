_base_ = ['../_base_/methods/proxy_nca.py', '../_base_/datasets/cub200_224.py']
model = dict(head=dict(loss=dict(num_classes=100)))
train_dataloader = dict(batch_size=32, sampler=dict(m=4, batch_size=32))
