_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/stanford_online_products_224.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/default_runtime.py',
]
# Triplet loss over semi-hard triplets (Schroff et al., CVPR 2015) with the settings of Roth et al.
# (Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML
# 2020) and their code: margin 0.2, 112 images with 2 of a class, width 128, batch norms frozen.
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.TripletMarginLoss', margin=0.2),
        miner=dict(type='PML.TripletMarginMiner', margin=0.2, type_of_triplets='semihard')))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
