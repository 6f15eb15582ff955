_base_ = [
    '../_base_/models/resnet10_glyphs.py',
    '../_base_/datasets/glyphs_40.py',
    '../_base_/schedules/adamw_cosine_2e.py',
    '../_base_/default_runtime.py',
]
# Proxy-Anchor (Kim et al., CVPR 2020): margin 0.1, alpha 32; proxies at a rate near the 0.01 of
# the paper.
model = dict(
    prototype={{_base_.gallery_dataloader}},
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyAnchorLoss', num_classes=1433, embedding_size=128,
                  margin=0.1, alpha=32)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(
    lr_mult=3, decay_mult=0)}))
