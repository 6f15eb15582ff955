_base_ = '../_base_/glyphs.py'
# SoftTriple (Qian et al., ICCV 2019): lambda 20, gamma 0.1, margin 0.01, two centres a class
# as the paper takes for classes of a few images; they are drawn short (0.01
# a number) and so move at a lower rate.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SoftTripleLoss', num_classes=1433, embedding_size=128,
                  centers_per_class=2, la=20, gamma=0.1, margin=0.01)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(
    lr_mult=0.3, decay_mult=0)}))
