_base_ = [
    '../_base_/models/resnet50_gem.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_cosine_20e.py',
    '../_base_/default_runtime.py',
]
# Multi-similarity (Wang et al., CVPR 2019) with its own miner needs no number of classes.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
