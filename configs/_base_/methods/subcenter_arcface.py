# Sub-centre ArcFace (Deng et al., ECCV 2020) with margins by class, larger where a class is rarer
# (Ha et al., arXiv:2010.05350), counted from the training set. Neither paper trains on these
# datasets: scale, width and schedule are those of the ArcFace recipes; 3 centres a class are chosen
# for CUB-200 and Cars196, 2 for the others.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='AdaptiveSubCenterArcFaceLoss', embedding_size=128, scale=16)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=50)}))
custom_hooks = [
    *_base_.custom_hooks, dict(type='FreezeBatchNormHook'), dict(type='AdaptiveMarginHook')]
