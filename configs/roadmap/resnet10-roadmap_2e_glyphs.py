_base_ = '../_base_/glyphs.py'
# ROADMAP (Ramzi et al., NeurIPS 2021): lambda 0.5, temperature 0.01, slope 100, delta 0.05,
# margins 0.9 and 0.6.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='RoadmapLoss', calibration_weight=0.5, temperature=0.01, slope=100,
                  saturation=0.05, positive_margin=0.9, negative_margin=0.6)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
