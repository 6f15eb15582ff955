_base_ = ['../_base_/methods/roadmap.py', '../_base_/datasets/inshop_224.py']
# Weight decay 1e-4, the projection at twice the rate; the paper does not train on this dataset, 100
# epochs are chosen.
train_dataloader = dict(batch_size=128, sampler=dict(m=4, batch_size=128))
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'image_encoder.projection': dict(lr_mult=2)}))
