# Google Landmarks v2 retrieval, see docs/datasets/google_landmarks_v2.md: public and private
# queries in the index, `DATA_ROOT=path python tools/test.py …`. Pictures of at most 1,024 px; sizes
# differ, so images come one by one.
data_root = '{{$DATA_ROOT:data/google_landmarks_v2}}'

test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LimitLongEdge', limit=1024),
    dict(type='PackInputs')]

test_dataloader = dict(
    batch_size=1, num_workers=8,
    dataset=dict(type='GoogleLandmarksV2', data_root=data_root, split='query',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    batch_size=1, num_workers=8,
    dataset=dict(type='GoogleLandmarksV2', data_root=data_root, split='gallery',
                 pipeline=test_pipeline,
                 check_files=False),  # a missing file is named when it is read
    sampler=dict(type='DefaultSampler', shuffle=False))

test_evaluator = dict(type='EmbeddingMetrics', protocol='GoogleLandmarksV2')
val_evaluator = test_evaluator
