# Objects, which `retrieval prepare_objects` renders, in pictures of 96 px; see
# docs/datasets/objects.md: `DATA_ROOT=path retrieval train …`.
_base_ = './image_folder_96.py'
data_root = '{{$DATA_ROOT:data/objects}}'
train_dataloader = dict(
    dataset=dict(type='Objects', data_root=data_root, split='train'))
test_dataloader = dict(
    dataset=dict(type='Objects', data_root=data_root, split='test'))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
