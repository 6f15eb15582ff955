_base_ = '../_base_/glyphs.py'
# Sub-centre ArcFace (Deng et al., ECCV 2020), two centres a class, with margins by class from the
# class counts (Ha et al., arXiv:2010.05350); the scale is that of the ArcFace recipe.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='AdaptiveSubCenterArcFaceLoss', num_classes=1433,
                  embedding_size=128, sub_centers=2, scale=24)))
custom_hooks = [*_base_.custom_hooks, dict(type='AdaptiveMarginHook')]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(
    lr_mult=10, decay_mult=0)}))  # class weights are drawn with deviation 1
