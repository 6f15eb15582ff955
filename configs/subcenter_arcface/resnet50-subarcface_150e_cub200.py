_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/cub200_224.py',
    '../_base_/schedules/adam_150e.py',
    '../_base_/default_runtime.py',
]
# Sub-centre ArcFace (Deng et al., ECCV 2020) with margins by class, larger where a class is rarer
# (Ha et al., arXiv:2010.05350), counted from the training set. Neither paper trains on this
# dataset: scale, width and schedule are those of the ArcFace recipe beside it, 3 centres a class
# are chosen.
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='AdaptiveSubCenterArcFaceLoss', num_classes=100,
                  embedding_size=128, sub_centers=3, scale=16)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=50)}))
custom_hooks = [
    *_base_.custom_hooks, dict(type='FreezeBatchNormHook'), dict(type='AdaptiveMarginHook')]
