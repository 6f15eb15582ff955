_base_ = ['../_base_/methods/roadmap.py', '../_base_/datasets/stanford_online_products_224.py']
train_dataloader = dict(batch_size=128, sampler=dict(m=4, batch_size=128))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
