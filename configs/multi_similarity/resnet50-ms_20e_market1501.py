_base_ = ['../_base_/methods/multi_similarity.py', '../_base_/datasets/market1501_256x128.py']
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP'))
