_base_ = ['../_base_/methods/soft_triple.py', '../_base_/datasets/cars196_224.py']
# 10 centres a class, drawn together with weight 0.2.
model = dict(head=dict(loss=dict(
    num_classes=98, centers_per_class=10, weight_reg_weight=0.2,
    weight_regularizer=dict(
        type='PML.SparseCentersRegularizer', num_classes=98, centers_per_class=10))))
train_dataloader = dict(
    batch_size=32, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
