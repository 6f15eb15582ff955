_base_ = [
    '../_base_/models/resnet10_glyphs.py',
    '../_base_/datasets/glyphs_40.py',
    '../_base_/schedules/adamw_cosine_2e.py',
    '../_base_/default_runtime.py',
]
# Circle loss (Sun et al., CVPR 2020): m 0.4 and gamma 80, as for fine-grained retrieval.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.CircleLoss', m=0.4, gamma=80)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
