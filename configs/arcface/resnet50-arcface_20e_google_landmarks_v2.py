_base_ = [
    '../_base_/models/resnet50_gem.py',
    '../_base_/datasets/google_landmarks_v2_clean_512.py',
    '../_base_/datasets/google_landmarks_v2_1024.py',
    '../_base_/schedules/adamw_cosine_20e.py',
    '../_base_/default_runtime.py',
]
# Margin 0.1 rad and scale 45 as Cao et al. (Unifying Deep Local and Global Features, ECCV 2020).
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ArcFaceLoss', num_classes=81313, embedding_size=512,
                  margin=5.73, scale=45)))  # margin in degrees, as the library takes it
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP@100'))
train_cfg = dict(val_interval=20)  # one validation encodes three quarters of a million images
