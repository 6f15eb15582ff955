# Multi-similarity (Wang et al., CVPR 2019) with its own miner needs no number of classes.
_base_ = [
    '../models/resnet50_gem.py',
    '../schedules/adamw_cosine_20e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
