# SoftTriple (Qian et al., ICCV 2019) and its authors' code, which trains BN-Inception: lambda 20,
# gamma 0.1, margin 0.01, batches of 32 at random, Adam with eps 0.01 at 1e-4, centres at 100 times
# that, a tenth every 20 epochs, width 512, batch norms frozen.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_step_50e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SoftTripleLoss', embedding_size=512, la=20, gamma=0.1, margin=0.01)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.losses': dict(lr_mult=100)}))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
