_base_ = ['../_base_/methods/smooth_ap.py', '../_base_/datasets/stanford_online_products_224.py']
train_dataloader = dict(batch_size=384, sampler=dict(m=4, batch_size=384))
