# iNaturalist 2018, see docs/datasets/inaturalist2018.md: `DATA_ROOT=path python tools/train.py …`.
# The pipeline is also that of Brown et al., Smooth-AP (ECCV 2020).
_base_ = './crops_224.py'
data_root = '{{$DATA_ROOT:data/inaturalist2018}}'
train_dataloader = dict(dataset=dict(type='INaturalist2018', data_root=data_root))
test_dataloader = dict(dataset=dict(type='INaturalist2018', data_root=data_root))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='INaturalist2018')
val_evaluator = test_evaluator
