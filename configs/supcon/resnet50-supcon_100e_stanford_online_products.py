_base_ = ['../_base_/methods/supcon.py', '../_base_/datasets/stanford_online_products_224.py']
train_dataloader = dict(batch_size=112, sampler=dict(m=4, batch_size=112))
