# Fine-tuning on pictures of one's own, mostly thousands: Multi-similarity (Wang et al., CVPR 2019)
# over the default encoder, so that it ends above where it began. The untrained encoder is validated
# as epoch 0; the projection starts at the principal components and is trained alone at first; batch
# norms keep their statistics; what is validated and kept is an average of the weights. It stops
# where nothing got better for three validations.
_base_ = [
    '../models/efficientnet_lite0_gem.py',
    '../schedules/adamw_fine_tuning_5e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
        miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StartAtComponentsHook'),
    dict(type='FreezeHook', modules='image_encoder.backbone', share=0.1),
    dict(type='FreezeBatchNormHook'),
    dict(type='AveragedWeightsHook', share=0.05),
    dict(type='CompareWithStartHook'),
    dict(type='EarlyStoppingHook', monitor='embedding/Recall@1', rule='greater', patience=3)]
find_unused_parameters = True  # on several processes, for what is frozen
