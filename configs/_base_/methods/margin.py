# Margin loss with distance-weighted sampling (Wu et al., ICCV 2017) with the settings of Roth et
# al. (Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML
# 2020) and their code: margin 0.2, beta 1.2 at the start and learned for each class at 5e-4, 112
# images with 2 of a class, width 128, batch norms frozen; 150 epochs on CUB-200 and Cars196, 100 on
# the others.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MarginLoss', margin=0.2, beta=1.2, learn_beta=True),
        miner=dict(type='DistanceWeightedTripletMiner', cutoff=0.5, nonzero_loss_cutoff=1.4)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=50)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
