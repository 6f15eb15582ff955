# Your own table with the columns path,label,split,is_query,is_gallery, paths relative to DATA_ROOT:
# `CSV=table.csv DATA_ROOT=path python tools/train.py …`.
ann_file = '{{$CSV:data/images.csv}}'
data_root = '{{$DATA_ROOT:data}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=4, persistent_workers=True,
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='train',
                 pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='MPerClassBatchSampler', m=4),
    collate_fn=dict(type='retrieval.image_collate'))
test_dataloader = dict(
    batch_size=64, num_workers=4,
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='query',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='retrieval.image_collate'))
val_dataloader = test_dataloader
gallery_dataloader = dict(
    batch_size=64, num_workers=4,
    dataset=dict(type='CSVDataset', ann_file=ann_file, data_root=data_root, split='gallery',
                 pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='retrieval.image_collate'))

test_evaluator = [
    dict(type='EmbeddingMetrics', metrics=['Recall@1', 'Recall@10', 'MAP@R', 'mAP']),
    dict(type='RetrievalRecall', topk=(1, 10))]
val_evaluator = test_evaluator
