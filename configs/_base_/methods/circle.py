# Circle loss (Sun et al., CVPR 2020): m 0.4, gamma 80, width 512, 16 classes of 5 images in a
# batch, for BN-Inception. The schedule and the frozen batch norms are chosen, those of Roth et al.
# (ICML 2020).
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.CircleLoss', m=0.4, gamma=80)))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
