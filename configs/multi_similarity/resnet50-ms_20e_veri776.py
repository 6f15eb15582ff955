_base_ = ['../_base_/methods/multi_similarity.py', '../_base_/datasets/veri776_256.py']
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP'))
