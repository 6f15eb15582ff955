# ResNet-50 at 224 px with weights that timm fetches, else as lite0-ms_5e_image_folder.py.
_base_ = ['../_base_/methods/fine_tuning.py', '../_base_/datasets/image_folder_224.py']
model = dict(
    image_encoder=dict(
        backbone=dict(_delete_=True, type='TimmBackbone', model_name='resnet50', pretrained=True),
        projection=512),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
train_cfg = dict(max_epochs=20)
