_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/stanford_online_products_224.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/default_runtime.py',
]
# Smooth-AP (Brown et al., ECCV 2020) and its authors' code: temperature 0.01, width 512, batches
# of 384 with 4 of a class, Adam at 1e-5, the projection at 5 times that, batch norms frozen. The
# length is chosen.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='SmoothAveragePrecisionLoss', temperature=0.01)))
train_dataloader = dict(batch_size=384, sampler=dict(m=4, batch_size=384))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'image_encoder.projection': dict(lr_mult=5)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
