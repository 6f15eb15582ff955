_base_ = ['../_base_/methods/circle.py', '../_base_/datasets/inshop_224.py']
# In-Shop is not in the paper.
train_dataloader = dict(batch_size=80, sampler=dict(m=5, batch_size=80))
