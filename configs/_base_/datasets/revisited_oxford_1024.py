# Revisited Oxford, for testing alone, see docs/datasets/revisited.md: DATA_ROOT is the folder that
# holds `roxford5k/`. Pictures of at most 1,024 px, queries cut to their box; sizes differ, so
# images come one by one. A million distractors:
# `--cfg-options gallery_dataloader.dataset.distractors=revisitop1m`.
data_root = '{{$DATA_ROOT:data/datasets}}'

test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LimitLongEdge', limit=1024),
    dict(type='PackInputs')]

test_dataloader = dict(
    batch_size=1, num_workers=4,
    dataset=dict(type='RevisitedOxford', data_root=data_root, split='query',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    batch_size=1, num_workers=4,
    dataset=dict(type='RevisitedOxford', data_root=data_root, split='gallery',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))

test_evaluator = dict(type='EmbeddingMetrics', protocol='RevisitedOxford')
val_evaluator = test_evaluator
