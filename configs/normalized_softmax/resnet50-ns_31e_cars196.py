_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/cars196_224.py',
    '../_base_/schedules/sgd_step_31e.py',
    '../_base_/default_runtime.py',
]
# Normalised softmax (Zhai and Wu, BMVC 2019) and its authors' code: temperature 0.05 (here where
# it starts, and is learned), the 2,048 features themselves, 75 images with 25 of a class, SGD at
# 1e-2, one epoch with the backbone held, then 30, a tenth after 15. Their layer norm after pooling
# is left out.
model = dict(
    image_encoder=dict(projection=None),
    head=dict(
        type='MetricHead',
        loss=dict(type='LearnableTemperatureSoftmaxLoss', num_classes=98,
                  embedding_size=2048, temperature=0.05)))
train_dataloader = dict(batch_size=75, sampler=dict(m=25, batch_size=75))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0)}))
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=1)]
find_unused_parameters = True  # on several processes, for what is frozen
