# Supervised contrastive loss (Khosla et al., NeurIPS 2020): temperature 0.1, width 128. The paper
# has no figures on these datasets; the rest is chosen: the schedule, batches and frozen batch norms
# of the ArcFace recipes, with 4 images of a class instead of 2.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_100e.py',
    '../default_runtime.py',
]
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SupConLoss', temperature=0.1)))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
