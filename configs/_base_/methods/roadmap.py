# ROADMAP (Ramzi et al., NeurIPS 2021) and its authors' code: lambda 0.5, temperature 0.01, slope
# 100, delta 0.05, margins 0.9 and 0.6, 128 images with 4 of a class, width 512, batch norms
# frozen, Adam at 1e-5. Their layer norm after pooling is left out.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='RoadmapLoss', calibration_weight=0.5, temperature=0.01, slope=100,
                  saturation=0.05, positive_margin=0.9, negative_margin=0.6)))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
