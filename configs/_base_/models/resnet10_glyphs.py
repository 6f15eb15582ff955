# A ten-layer residual network for small grey pictures, average-pooled and projected to 128.
model = dict(
    type='ImageToImageRetriever',
    image_encoder=dict(
        type='ImageEncoder',
        backbone=dict(
            type='TimmBackbone', model_name='resnet10t', in_chans=1, stem_width=16,
            channels=(32, 64, 96, 128)),
        pooling=dict(type='GlobalAveragePooling'),
        projection=128,
        normalize=True),
    topk=100)
