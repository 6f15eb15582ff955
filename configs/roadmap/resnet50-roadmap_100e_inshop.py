_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/inshop_224.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/default_runtime.py',
]
# ROADMAP (Ramzi et al., NeurIPS 2021) and its authors' code: lambda 0.5, temperature 0.01, slope
# 100, delta 0.05, margins 0.9 and 0.6, 128 images with 4 of a class, width 512, batch norms
# frozen, Adam at 1e-5 with weight decay 1e-4, the projection at twice that; the paper does not
# train on this dataset, 100 epochs are chosen. Their layer norm after pooling is left out.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='RoadmapLoss', calibration_weight=0.5, temperature=0.01, slope=100,
                  saturation=0.05, positive_margin=0.9, negative_margin=0.6)))
train_dataloader = dict(batch_size=128, sampler=dict(m=4, batch_size=128))
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'image_encoder.projection': dict(lr_mult=2)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
