_base_ = '../_base_/glyphs.py'
# Smooth-AP (Brown et al., ECCV 2020): temperature 0.01, 4 of a class in a batch.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='SmoothAveragePrecisionLoss', temperature=0.01)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
