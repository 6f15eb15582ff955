_base_ = '../_base_/glyphs.py'
# Multi-similarity (Wang et al., CVPR 2019) with its miner: alpha 2, beta 50, epsilon 0.1.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
