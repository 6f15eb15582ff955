_base_ = '../_base_/glyphs.py'
# Circle loss (Sun et al., CVPR 2020): m 0.4 and gamma 80, as for fine-grained retrieval.
model = dict(
    head=dict(type='MetricHead', loss=dict(type='PML.CircleLoss', m=0.4, gamma=80)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
