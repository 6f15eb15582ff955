# Stanford Online Products, see docs/datasets/stanford_online_products.md:
# `DATA_ROOT=path python tools/train.py …`.
_base_ = './crops_224.py'
data_root = '{{$DATA_ROOT:data/Stanford_Online_Products}}'
train_dataloader = dict(dataset=dict(type='StanfordOnlineProducts', data_root=data_root))
test_dataloader = dict(dataset=dict(type='StanfordOnlineProducts', data_root=data_root))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='StanfordOnlineProducts')
val_evaluator = test_evaluator
