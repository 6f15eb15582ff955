_base_ = ['../_base_/methods/margin.py', '../_base_/datasets/stanford_online_products_224.py']
model = dict(head=dict(loss=dict(num_classes=11318)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
