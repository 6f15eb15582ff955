# Normalised softmax (Zhai and Wu, BMVC 2019) and its authors' code: temperature 0.05 (here where
# it starts, and is learned), the 2,048 features themselves, 75 images with 5 of a class, or 25 on
# CUB-200 and Cars196, SGD at 1e-2, one epoch with the backbone held, then 30, a tenth after 15.
# Their layer norm after pooling is left out.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/sgd_step_31e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=None),
    head=dict(
        type='MetricHead',
        loss=dict(type='LearnableTemperatureSoftmaxLoss', embedding_size=2048, temperature=0.05)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0)}))
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=1)]
find_unused_parameters = True  # on several processes, for what is frozen
