# What every experiment shares: hooks, logging and the environment.
default_scope = 'retrieval'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=3,
        save_best='embedding/Recall@1', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'))

custom_hooks = [
    dict(type='PreparePrototypeHook'),
    dict(type='ReproducibleTrainingHook'),
    dict(type='CheckHeadHook')]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])

randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
