# VeRi-776 at 256 x 256, see docs/datasets/veri776.md: `DATA_ROOT=path python tools/train.py …`.
# The augmentation is that of Market-1501.
_base_ = './market1501_256x128.py'
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
    dataset=dict(type='VeRi776', data_root=data_root, pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(type='VeRi776', data_root=data_root, pipeline=test_pipeline))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='VeRi776')
val_evaluator = test_evaluator
