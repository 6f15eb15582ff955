# Triplet loss over semi-hard triplets (Schroff et al., CVPR 2015) with the settings of Roth et al.
# (Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML
# 2020) and their code: margin 0.2, 112 images with 2 of a class, width 128, batch norms frozen; 150
# epochs on CUB-200 and Cars196, 100 on the others.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.TripletMarginLoss', margin=0.2),
        miner=dict(type='PML.TripletMarginMiner', margin=0.2, type_of_triplets='semihard')))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
