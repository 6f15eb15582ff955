_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/inshop_224.py',
    '../_base_/schedules/adam_100e.py',
    '../_base_/default_runtime.py',
]
# Supervised contrastive loss (Khosla et al., NeurIPS 2020): temperature 0.1, width 128. The paper
# has no figures on this dataset; the rest is chosen: the schedule, batches and frozen batch norms
# of the ArcFace recipe, with 4 images of a class instead of 2.
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SupConLoss', temperature=0.1)))
train_dataloader = dict(batch_size=112, sampler=dict(m=4, batch_size=112))
custom_hooks = [*_base_.custom_hooks, dict(type='FreezeBatchNormHook')]
