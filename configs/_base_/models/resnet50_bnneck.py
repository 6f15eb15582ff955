# ResNet-50 with a last stage of stride 1, average-pooled, and a batch norm between the features
# that are compared by distance and those that are classified (Luo et al., Bag of Tricks for Deep
# Person Re-identification, 2019). The last stage is dilated for it; the paper's is not.
_base_ = './resnet50_avg.py'
model = dict(
    image_encoder=[
        dict(
            type='ImageEncoder',
            backbone=dict(type='TimmBackbone', model_name='resnet50', pretrained=True,
                          output_stride=16),
            pooling=dict(type='GlobalAveragePooling'),
            normalize=False),
        dict(type='BatchNormNeck', in_features=2048)])
