_base_ = ['../_base_/methods/cross_batch_memory.py', '../_base_/datasets/cub200_224.py']
# Half the training set in memory after 200 iterations, chosen.
model = dict(head=dict(loss=[
    dict(name='batch', **_base_.contrastive),
    dict(name='memory', type='retrieval.CrossBatchMemory', loss=_base_.contrastive,
         embedding_size=128, memory_size=2932, warmup_iters=200)]))
