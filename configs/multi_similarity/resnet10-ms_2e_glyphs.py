_base_ = [
    '../_base_/models/resnet10_glyphs.py',
    '../_base_/datasets/glyphs_40.py',
    '../_base_/schedules/adamw_cosine_2e.py',
    '../_base_/default_runtime.py',
]
# Multi-similarity (Wang et al., CVPR 2019) with its miner: alpha 2, beta 50, epsilon 0.1.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
