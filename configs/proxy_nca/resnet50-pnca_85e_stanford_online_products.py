_base_ = ['../_base_/methods/proxy_nca.py', '../_base_/datasets/stanford_online_products_224.py']
# On this dataset width 512, at 2.4e-2, proxies at 1e4 times that, for 5 epochs with the backbone
# held and 80 more.
model = dict(
    image_encoder=dict(projection=512), head=dict(loss=dict(num_classes=11318, embedding_size=512)))
train_dataloader = dict(batch_size=192, sampler=dict(m=3, batch_size=192))
optim_wrapper = dict(
    optimizer=dict(lr=2.4e-2),
    paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=1e4)}))
train_cfg = dict(max_epochs=85)
