# In-shop Clothes Retrieval, see docs/datasets/inshop.md: `DATA_ROOT=path python tools/train.py …`.
# Queries are searched in the gallery.
_base_ = './crops_224.py'
data_root = '{{$DATA_ROOT:data/inshop}}'
train_dataloader = dict(dataset=dict(type='InShop', data_root=data_root))
test_dataloader = dict(dataset=dict(type='InShop', data_root=data_root, split='query'))
val_dataloader = test_dataloader
gallery_dataloader = dict(dataset=dict(type='InShop', data_root=data_root, split='gallery'))
test_evaluator = dict(protocol='InShop')
val_evaluator = test_evaluator
