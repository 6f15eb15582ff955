_base_ = [
    '../_base_/models/resnet10_glyphs.py',
    '../_base_/datasets/glyphs_40.py',
    '../_base_/schedules/adamw_cosine_2e.py',
    '../_base_/default_runtime.py',
]
# Smooth-AP (Brown et al., ECCV 2020): temperature 0.01, 4 of a class in a batch.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='SmoothAveragePrecisionLoss', temperature=0.01)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
