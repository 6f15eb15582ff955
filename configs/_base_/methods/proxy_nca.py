# ProxyNCA++ (Teh et al., ECCV 2020) as its authors' code: temperature 1/9, maximum pooling, width
# 2048, Adam with eps 1 at 4e-3, proxies at 1e5 times that, 5 epochs with the backbone held and 40
# more. Left out: their layer norm after pooling, crops of 256 px, and the steps that they choose on
# a validation set.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_45e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(pooling=dict(type='GlobalMaxPooling'), projection=2048),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyNCALoss', embedding_size=2048, softmax_scale=9)))
optim_wrapper = dict(
    clip_grad=dict(type='value', clip_value=10),
    paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=1e5)}))
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=5)]
find_unused_parameters = True  # on several processes, for what is frozen
