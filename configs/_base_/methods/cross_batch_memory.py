# Cross-batch memory (Wang et al., CVPR 2020) over the contrastive loss on cosines, margin 0.5,
# beside the loss of the batch itself, as in the authors' code: 64 images with 4 of a class, width
# 128. They lower the rate on a plateau, here it is a tenth from epoch 30 on. The memory, whose size
# goes by the dataset, stands in the recipe.
_base_ = [
    '../models/resnet50_avg.py',
    '../schedules/adam_step_40e.py',
    '../default_runtime.py',
]
contrastive = dict(
    type='PML.ContrastiveLoss', pos_margin=1, neg_margin=0.5,
    distance=dict(type='PML.CosineSimilarity'))
model = dict(image_encoder=dict(projection=128), head=dict(type='MetricHead'))
