_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/inshop_224.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/default_runtime.py',
]
# Margin loss with distance-weighted sampling (Wu et al., ICCV 2017) with the settings of Roth et
# al. (Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML
# 2020) and their code: margin 0.2, beta 1.2 at the start and learned for each class at 5e-4, 112
# images with 2 of a class, width 128, batch norms frozen. In-Shop is not in that paper; it is
# trained as Stanford Online Products.
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.MarginLoss', num_classes=3997, margin=0.2, beta=1.2,
                  learn_beta=True),
        miner=dict(type='DistanceWeightedTripletMiner', cutoff=0.5,
                   nonzero_loss_cutoff=1.4)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=50)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
