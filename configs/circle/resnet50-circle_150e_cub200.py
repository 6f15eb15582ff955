_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/cub200_224.py',
    '../_base_/schedules/adam_150e.py',
    '../_base_/default_runtime.py',
]
# Circle loss (Sun et al., CVPR 2020): m 0.4, gamma 80, width 512, 16 classes of 5 images in a
# batch, for BN-Inception. The schedule and the frozen batch norms are chosen, those of Roth et al.
# (ICML 2020).
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.CircleLoss', m=0.4, gamma=80)))
train_dataloader = dict(batch_size=80, sampler=dict(m=5, batch_size=80))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
