_base_ = [
    '../_base_/models/resnet50_gem.py',
    '../_base_/datasets/cars196_224.py',
    '../_base_/schedules/adamw_cosine_20e.py',
    '../_base_/default_runtime.py',
]
# Multi-similarity (Wang et al., CVPR 2019) with its own miner needs no number of classes. Batches,
# rate and weight decay are those with which its authors' code trains ResNet-50; pooling, schedule
# and AdamW instead of Adam are chosen.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
train_dataloader = dict(batch_size=80, sampler=dict(m=5, batch_size=80))
optim_wrapper = dict(optimizer=dict(lr=3e-5, weight_decay=5e-4))
