_base_ = [
    '../_base_/methods/cross_batch_memory.py', '../_base_/datasets/stanford_online_products_224.py']
# 55,000 embeddings in memory after 1,000 iterations; about 35,000 iterations in all.
model = dict(head=dict(loss=[
    dict(name='batch', **_base_.contrastive),
    dict(name='memory', type='retrieval.CrossBatchMemory', loss=_base_.contrastive,
         embedding_size=128, memory_size=55000, warmup_iters=1000)]))
