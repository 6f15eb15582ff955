_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/stanford_online_products_224.py',
    '../_base_/schedules/adamw_step_60e.py',
    '../_base_/default_runtime.py',
]
# Proxy-Anchor (Kim et al., CVPR 2020), as its authors' code trains BN-Inception on this dataset:
# margin 0.1, alpha 32, batches of 180 drawn at random, AdamW at 6e-4, proxies at 100 times that, a
# quarter every 20 epochs, the backbone held for 1 epoch. They pool by mean plus maximum, here by
# mean.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyAnchorLoss', num_classes=11318, embedding_size=512,
                  margin=0.1, alpha=32)))
train_dataloader = dict(
    batch_size=180, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
optim_wrapper = dict(
    optimizer=dict(lr=6e-4),
    clip_grad=dict(type='value', clip_value=10),
    paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=100)}))
param_scheduler = [dict(type='StepLR', step_size=20, gamma=0.25)]
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=1)]
find_unused_parameters = True  # on several processes, for what is frozen
