_base_ = '../_base_/glyphs.py'
# ProxyNCA++ (Teh et al., ECCV 2020): temperature 1/9, proxies at ten times the rate.
# Batches are drawn at random: by class, as there, each proxy would meet its own seven times.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyNCALoss', num_classes=1433, embedding_size=128,
                  softmax_scale=9)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(
    lr_mult=10, decay_mult=0)}))
