# A ten-layer residual network for small grey pictures, average-pooled and projected to 128.
model = dict(
    type='ImageToImageRetriever',
    image_encoder=dict(
        type='ImageEncoder',
        backbone=dict(
            type='TimmBackbone', model_name='resnet18', in_chans=1, layers=(1, 1, 1, 1),
            channels=(32, 64, 128, 256), stem_type='deep', stem_width=16, zero_init_last=False),
        pooling=dict(type='GlobalAveragePooling'),
        projection=128,
        normalize=True),
    topk=100)
