_base_ = ['../_base_/methods/soft_triple.py', '../_base_/datasets/stanford_online_products_224.py']
# 2 centres a class. Left out: the regulariser that draws the centres of a class together, which
# needs a matrix of all centres by all centres.
model = dict(head=dict(loss=dict(num_classes=11318, centers_per_class=2)))
train_dataloader = dict(
    batch_size=32, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
