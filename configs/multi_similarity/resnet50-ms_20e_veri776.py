_base_ = [
    '../_base_/models/resnet50_gem.py',
    '../_base_/datasets/veri776_256.py',
    '../_base_/schedules/adamw_cosine_20e.py',
    '../_base_/default_runtime.py',
]
# Multi-similarity (Wang et al., CVPR 2019) with its own miner needs no number of classes.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP'))
