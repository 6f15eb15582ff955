_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/inshop_224.py',
    '../_base_/schedules/adam_step_50e.py',
    '../_base_/default_runtime.py',
]
# SoftTriple (Qian et al., ICCV 2019) and its authors' code, which trains BN-Inception: lambda 20,
# gamma 0.1, margin 0.01, 2 centres a class, batches of 32 at random, Adam with eps 0.01 at 1e-4,
# centres at 100 times that, a tenth every 20 epochs, width 512, batch norms frozen. In-Shop is not
# in the paper; it is trained as Stanford Online Products. Left out: the regulariser that draws the
# centres of a class together, which needs a matrix of all centres by all centres.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SoftTripleLoss', num_classes=3997, embedding_size=512,
                  centers_per_class=2, la=20, gamma=0.1, margin=0.01)))
train_dataloader = dict(
    batch_size=32, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=100)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
