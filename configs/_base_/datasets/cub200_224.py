# CUB-200-2011, see docs/datasets/cub200.md: `DATA_ROOT=path python tools/train.py …`.
_base_ = './crops_224.py'
data_root = '{{$DATA_ROOT:data/CUB_200_2011}}'
train_dataloader = dict(dataset=dict(type='CUB200', data_root=data_root))
test_dataloader = dict(dataset=dict(type='CUB200', data_root=data_root))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='CUB200')
val_evaluator = test_evaluator
