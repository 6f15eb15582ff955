# VeRi-776 at 256 x 256, see docs/datasets/veri776.md: `DATA_ROOT=path python tools/train.py …`.
# The augmentation is that of Luo et al., Bag of Tricks for Deep Person Re-identification, 2019.
data_root = '{{$DATA_ROOT:data/VeRi}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomCrop', crop_size=(256, 256), padding=10),
    dict(type='torchvision/RandomErasing', p=0.5, scale=(0.02, 0.4), value=[124, 116, 104]),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=4, persistent_workers=True, drop_last=True,
    dataset=dict(type='VeRi776', data_root=data_root, split='train', pipeline=train_pipeline),
    sampler=dict(type='MPerClassSampler', m=4, batch_size=64))
test_dataloader = dict(
    batch_size=128, num_workers=4,
    dataset=dict(type='VeRi776', data_root=data_root, split='query', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    batch_size=128, num_workers=4,
    dataset=dict(type='VeRi776', data_root=data_root, split='gallery', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))

test_evaluator = dict(type='EmbeddingMetrics', protocol='VeRi776')
val_evaluator = test_evaluator
