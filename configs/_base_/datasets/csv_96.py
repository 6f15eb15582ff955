# Your own table in pictures of 96 px, see csv_224.py and image_folder_96.py.
_base_ = './image_folder_96.py'
ann_file = '{{$CSV:data/images.csv}}'
data_root = '{{$DATA_ROOT:data}}'

train_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='train'))
test_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='query'))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='gallery'))
