# Market-1501 at 256 x 128 (height x width), see docs/datasets/market1501.md:
# `DATA_ROOT=path python tools/train.py …`. The augmentation is that of Luo et al., Bag of
# Tricks for Deep Person Re-identification, 2019.
data_root = '{{$DATA_ROOT:data/Market-1501-v15.09.15}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(128, 256)),  # width, height
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomCrop', crop_size=(128, 256), padding=10),
    dict(type='torchvision/RandomErasing', p=0.5, scale=(0.02, 0.4), value=[124, 116, 104]),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(128, 256)),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=4, persistent_workers=True, drop_last=True,
    dataset=dict(type='Market1501', data_root=data_root, split='train', pipeline=train_pipeline),
    sampler=dict(type='MPerClassSampler', m=4, batch_size=64))
test_dataloader = dict(
    batch_size=128, num_workers=4,
    dataset=dict(type='Market1501', data_root=data_root, split='query', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    batch_size=128, num_workers=4,
    dataset=dict(type='Market1501', data_root=data_root, split='gallery', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))

test_evaluator = dict(type='EmbeddingMetrics', protocol='Market1501')
val_evaluator = test_evaluator
