_base_ = ['../_base_/methods/bnneck.py', '../_base_/datasets/market1501_256x128.py']
model = dict(head=dict(after=dict(num_classes=751)))
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP'))
