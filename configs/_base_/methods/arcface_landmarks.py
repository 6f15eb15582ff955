# ArcFace over generalised-mean pooling, trained on the clean list of Google Landmarks v2: margin
# 0.1 rad and scale 45 as Cao et al. (Unifying Deep Local and Global Features, ECCV 2020).
_base_ = [
    '../models/resnet50_gem.py',
    '../datasets/google_landmarks_v2_clean_512.py',
    '../schedules/adamw_cosine_20e.py',
    '../default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ArcFaceLoss', num_classes=81313, embedding_size=512,
                  margin=5.73, scale=45)))  # margin in degrees, as the library takes it
