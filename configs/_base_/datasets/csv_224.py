# Your own table with the columns path,label,split,is_query,is_gallery, paths relative to DATA_ROOT:
# `CSV=table.csv DATA_ROOT=path python tools/train.py …`. Else as your own folder.
_base_ = './image_folder_224.py'
ann_file = '{{$CSV:data/images.csv}}'
data_root = '{{$DATA_ROOT:data}}'

train_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='train'))
test_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='query'))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='gallery'))
