_base_ = '../_base_/glyphs.py'
# Supervised contrastive (Khosla et al., NeurIPS 2020): temperature 0.1.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.SupConLoss', temperature=0.1)))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='MPerClassSampler', m=4, batch_size=128))
