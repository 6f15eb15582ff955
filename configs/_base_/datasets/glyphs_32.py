# Glyphs at 32 px, white on black: training on one half of the characters, testing on the other.
# The test set is searched in itself, each image without itself.
data_preprocessor = dict(mean=[33.0], std=[75.0])

load = [dict(type='LoadImage', color='gray'), dict(type='Resize', scale=(32, 32), interpolation='area')]
train_pipeline = [
    *load,
    dict(type='RandomAffine', degrees=8, translate=0.06, scale=(0.85, 1.1), shear=6),
    dict(type='PackInputs')]
test_pipeline = [*load, dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=256, num_workers=2, persistent_workers=True,
    dataset=dict(type='Glyphs', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(
    batch_size=256, num_workers=1,
    dataset=dict(type='Glyphs', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader

test_evaluator = [
    dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'R-Precision', 'mAP']),
    dict(type='RetrievalRecall', topk=(1, 10))]
val_evaluator = test_evaluator
