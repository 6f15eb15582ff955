_base_ = ['../_base_/methods/triplet.py', '../_base_/datasets/stanford_online_products_224.py']
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
