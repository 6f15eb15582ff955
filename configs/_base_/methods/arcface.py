# ArcFace (Deng et al., CVPR 2019) with the settings of Roth et al. (Revisiting Training Strategies
# and Generalization Performance in Deep Metric Learning, ICML 2020) and their code: margin 0.5
# rad, scale 16, centres learned at 5e-4, 112 images with 2 of a class, width 128, batch norms
# frozen; 150 epochs on CUB-200 and Cars196, 100 on the others.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ArcFaceLoss', embedding_size=128, margin=28.65, scale=16)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=50)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
