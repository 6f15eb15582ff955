# ResNet-50 with a last stage of stride 1, average-pooled, and a batch norm between the features
# that are compared by distance and those that are classified (Luo et al., Bag of Tricks for Deep
# Person Re-identification, 2019). The last stage is dilated for it; the paper's is not.
model = dict(
    type='ImageToImageRetriever',
    image_encoder=[
        dict(
            type='ImageEncoder',
            backbone=dict(type='TimmBackbone', model_name='resnet50', pretrained=True,
                          output_stride=16),
            pooling=dict(type='GlobalAveragePooling'),
            normalize=False),
        dict(type='BatchNormNeck', in_features=2048)],
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False),  # LoadImage reads RGB already
    topk=100)
