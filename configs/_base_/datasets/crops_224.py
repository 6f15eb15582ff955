# Photographs in crops of 224 px; a dataset adds its class, its folder and its protocol. Each test
# image is searched in all others. The pipeline is that of Kim et al., Proxy Anchor Loss (CVPR
# 2020): for training a random resized crop to 224 and a flip, for testing the short edge to 256 and
# the central 224.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=4, persistent_workers=True, drop_last=True,
    dataset=dict(split='train', pipeline=train_pipeline),
    sampler=dict(type='MPerClassSampler', m=4, batch_size=64))
test_dataloader = dict(
    batch_size=64, num_workers=4,
    dataset=dict(split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader

test_evaluator = dict(type='EmbeddingMetrics')
val_evaluator = test_evaluator
