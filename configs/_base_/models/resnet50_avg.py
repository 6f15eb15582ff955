# ResNet-50, average-pooled and projected to 512, on ImageNet-normalised RGB: what most papers on
# metric learning train.
model = dict(
    type='ImageToImageRetriever',
    image_encoder=dict(
        type='ImageEncoder',
        backbone=dict(type='TimmBackbone', model_name='resnet50', pretrained=True),
        pooling=dict(type='GlobalAveragePooling'),
        projection=512,
        normalize=True),
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False),  # LoadImage reads RGB already
    topk=100)
