_base_ = '../_base_/glyphs.py'
# Triplet loss over the semi-hard triplets of the batch (Schroff et al., CVPR 2015): margin 0.2.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.TripletMarginLoss', margin=0.2),
        miner=dict(type='PML.TripletMarginMiner', margin=0.2, type_of_triplets='semihard')))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
