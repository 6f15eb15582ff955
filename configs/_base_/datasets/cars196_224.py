# Cars196, see docs/datasets/cars196.md: `DATA_ROOT=path python tools/train.py …`.
_base_ = './crops_224.py'
data_root = '{{$DATA_ROOT:data/cars196}}'
train_dataloader = dict(dataset=dict(type='Cars196', data_root=data_root))
test_dataloader = dict(dataset=dict(type='Cars196', data_root=data_root))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='Cars196')
val_evaluator = test_evaluator
