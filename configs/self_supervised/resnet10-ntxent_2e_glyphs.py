# SimCLR (Chen et al., ICML 2020): two views of each picture against all others of the batch. The
# classes of the training pictures are not looked at, those of the test set only judge.
_base_ = '../_base_/glyphs.py'
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImage', color='gray'),
    dict(type='Resize', scale=(40, 40), interpolation='area'),
    dict(type='MultiView', num_views=2, transforms=[
        dict(type='RandomAffine', degrees=12, translate=0.08, scale=(0.8, 1.15), shear=12),
        dict(type='RandomResizedCrop', scale=40, crop_ratio_range=(0.6, 1.0))]),
    dict(type='PackInputs')]))
model = dict(
    type='SelfSupervisedRetriever',
    image_encoder=dict(projection=None, normalize=False),  # searched with: before the projector
    projector=dict(hidden_features=256, out_features=128),
    head=dict(type='MetricHead', loss=dict(type='PML.NTXentLoss', temperature=0.2)))
