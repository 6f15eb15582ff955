# Your own folder, one sub-folder a class, in pictures of 96 px: small ones, or to train in minutes.
# Nothing is cut off the border, where small pictures have their motif.
_base_ = './image_folder_224.py'
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=96, edge='short'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs')]

train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
