# Stanford Online Products, see docs/datasets/stanford_online_products.md:
# `DATA_ROOT=path python tools/train.py …`. Each test image is searched in all others.
# The pipeline is that of Kim et al., Proxy Anchor Loss (CVPR 2020): for training a random resized
# crop to 224 and a flip, for testing the short edge to 256 and the central 224.
data_root = '{{$DATA_ROOT:data/Stanford_Online_Products}}'

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
    dataset=dict(type='StanfordOnlineProducts', data_root=data_root, split='train',
                 pipeline=train_pipeline),
    sampler=dict(type='MPerClassSampler', m=4, batch_size=64))
test_dataloader = dict(
    batch_size=64, num_workers=4,
    dataset=dict(type='StanfordOnlineProducts', data_root=data_root, split='test',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader

test_evaluator = dict(type='EmbeddingMetrics', protocol='StanfordOnlineProducts')
val_evaluator = test_evaluator
