# Training on the clean list of Google Landmarks v2, crops of 512 px, see
# docs/datasets/google_landmarks_v2.md: `DATA_ROOT=path python tools/train.py …`. It stands beside a
# base with the data to test on, so it sets nothing else.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='RandomResizedCrop', scale=512, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=8, persistent_workers=True, drop_last=True,
    dataset=dict(type='GoogleLandmarksV2', data_root='{{$DATA_ROOT:data/google_landmarks_v2}}',
                 split='train_clean', pipeline=train_pipeline,
                 check_files=False),  # 1.6 million files: a missing one is named when it is read
    sampler=dict(type='DefaultSampler', shuffle=True))
