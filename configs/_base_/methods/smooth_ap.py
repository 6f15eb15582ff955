# Smooth-AP (Brown et al., ECCV 2020) and its authors' code: temperature 0.01, width 512, batches
# with 4 of a class, Adam at 1e-5, the projection at 5 times that, batch norms frozen. The length is
# chosen.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='SmoothAveragePrecisionLoss', temperature=0.01)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'image_encoder.projection': dict(lr_mult=5)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
