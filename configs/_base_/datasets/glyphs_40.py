# Glyphs at 40 px, white on black: training on one half of the characters, testing on the other.
# The test set is searched in itself, each image without itself.
data_preprocessor = dict(mean=[55.0], std=[90.0])

train_pipeline = [
    dict(type='LoadImage', color='gray'),
    dict(type='Resize', scale=(40, 40), interpolation='area'),
    dict(type='RandomAffine', degrees=5, translate=0.03, scale=(0.91, 1.06)),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImage', color='gray'),
    dict(type='Resize', scale=(40, 40), interpolation='area'),
    dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128, num_workers=0, drop_last=True,  # in memory; a worker would take a core
    dataset=dict(type='Glyphs', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(
    batch_size=256, num_workers=0,
    dataset=dict(type='Glyphs', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader

test_evaluator = [
    dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'R-Precision', 'mAP']),
    dict(type='RetrievalRecall', topk=(1, 10))]
val_evaluator = dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R'])
