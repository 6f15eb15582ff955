_base_ = '../_base_/glyphs.py'
# Margin loss with distance-weighted sampling (Wu et al., ICCV 2017): alpha 0.2, beta 1.2 and
# learned, distances below 0.5 count as 0.5, and above 1.4 as nothing.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MarginLoss', margin=0.2, beta=1.2, learn_beta=True),
        miner=dict(type='retrieval.DistanceWeightedTripletMiner', cutoff=0.5,
                   nonzero_loss_cutoff=1.4)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
