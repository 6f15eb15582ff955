# Fine-tuning of ResNet-50 at 224 px with weights that timm fetches; else as of EfficientNet-lite0.
_base_ = './fine_tuning.py'
model = dict(
    image_encoder=dict(
        backbone=dict(_delete_=True, type='TimmBackbone', model_name='resnet50', pretrained=True),
        projection=512),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
train_cfg = dict(max_epochs=20)
