_base_ = '../_base_/glyphs.py'
# ArcFace (Deng et al., CVPR 2019); a smaller margin and scale than the paper's 0.5 rad and 64,
# which are for thousands of classes of faces.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ArcFaceLoss', num_classes=1433, embedding_size=128,
                  margin=17, scale=24)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(
    lr_mult=10, decay_mult=0)}))  # class weights are drawn with deviation 1
