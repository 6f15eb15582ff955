# Cross-batch memory (Wang et al., CVPR 2020) with the contrastive loss on cosines, as there: the
# loss of the batch and that against the memory are added.
_base_ = '../_base_/glyphs.py'
train_dataloader = dict(
    drop_last=False, batch_sampler=dict(type='MPerClassBatchSampler', m=4))
contrastive = dict(type='PML.ContrastiveLoss', pos_margin=1, neg_margin=0.5,
                   distance=dict(type='CosineSimilarity'))
model = dict(
    head=dict(
        type='MetricHead',
        loss=[dict(name='batch', **contrastive),
              dict(type='retrieval.CrossBatchMemory', name='memory', loss=contrastive,
                   embedding_size=128, memory_size=4096, warmup_iters=140)]))  # one epoch
