# Proxy-Anchor (Kim et al., CVPR 2020) and its authors' code: margin 0.1, alpha 32, batches drawn at
# random, AdamW, proxies at 100 times its rate, the backbone held at first. They pool by mean plus
# maximum, here by mean.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adamw_step_60e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyAnchorLoss', embedding_size=512, margin=0.1, alpha=32)))
optim_wrapper = dict(
    clip_grad=dict(type='value', clip_value=10),
    paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=100)}))
find_unused_parameters = True  # on several processes, for what is frozen
