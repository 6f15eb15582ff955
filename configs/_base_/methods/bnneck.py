# The strong baseline of Luo et al. (Bag of Tricks and a Strong Baseline for Deep Person
# Re-identification, 2019) and their code: batch-hard triplets of margin 0.3 by the distance before
# the neck, a classifier without bias and with smoothed labels after it, 64 images with 4 of a
# person. Left out: the centre loss, which adds 0.2 points to their mAP.
_base_ = [
    '../models/resnet50_bnneck.py',
    '../schedules/adam_warmup_120e.py',
    '../default_runtime.py',
]
euclidean = dict(type='PML.LpDistance', normalize_embeddings=False)
model = dict(
    head=dict(
        type='BNNeckHead',
        before=dict(
            type='MetricHead',
            loss=dict(type='PML.TripletMarginLoss', margin=0.3, distance=euclidean,
                      reducer=dict(type='PML.MeanReducer')),
            miner=dict(type='PML.BatchHardMiner', distance=euclidean)),
        after=dict(
            type='ClassificationHead', in_features=2048, bias=False, label_smoothing=0.1,
            init_cfg=dict(type='Normal', layer='Linear', std=0.001))))
