_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/cars196_224.py',
    '../_base_/schedules/adamw_step_60e.py',
    '../_base_/default_runtime.py',
]
# Proxy-Anchor (Kim et al., CVPR 2020), as its authors' code trains ResNet-50: margin 0.1, alpha
# 32, batches of 120 drawn at random, AdamW at 1e-4, proxies at 100 times that, halved every 10
# epochs, the backbone held for 5 epochs, batch norms frozen. They pool by mean plus maximum, here
# by mean.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyAnchorLoss', num_classes=98, embedding_size=512,
                  margin=0.1, alpha=32)))
train_dataloader = dict(
    batch_size=120, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
optim_wrapper = dict(
    clip_grad=dict(type='value', clip_value=10),
    paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=100)}))
param_scheduler = [dict(type='StepLR', step_size=10, gamma=0.5)]
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=5, norm_eval=True)]
find_unused_parameters = True  # on several processes, for what is frozen
