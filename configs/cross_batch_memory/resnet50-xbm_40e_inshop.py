_base_ = ['../_base_/methods/cross_batch_memory.py', '../_base_/datasets/inshop_224.py']
# 25,000 embeddings in memory, chosen to be nearly all, after 1,000 iterations.
model = dict(head=dict(loss=[
    dict(name='batch', **_base_.contrastive),
    dict(name='memory', type='retrieval.CrossBatchMemory', loss=_base_.contrastive,
         embedding_size=128, memory_size=25000, warmup_iters=1000)]))
