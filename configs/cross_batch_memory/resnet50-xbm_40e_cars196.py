_base_ = [
    '../_base_/models/resnet50_avg.py',
    '../_base_/datasets/cars196_224.py',
    '../_base_/schedules/adam_step_40e.py',
    '../_base_/default_runtime.py',
]
# Cross-batch memory (Wang et al., CVPR 2020) over the contrastive loss on cosines, margin 0.5,
# beside the loss of the batch itself, as in the authors' code: 64 images with 4 of a class, width
# 128, half the training set in memory after 200 iterations, chosen. They lower the rate on a
# plateau, here it is a tenth from epoch 30 on.
contrastive = dict(
    type='PML.ContrastiveLoss', pos_margin=1, neg_margin=0.5,
    distance=dict(type='PML.CosineSimilarity'))
model = dict(
    image_encoder=dict(projection=128),
    head=dict(
        type='MetricHead',
        loss=[
            dict(name='batch', **contrastive),
            dict(name='memory', type='retrieval.CrossBatchMemory', loss=contrastive,
                 embedding_size=128, memory_size=4027, warmup_iters=200)]))
