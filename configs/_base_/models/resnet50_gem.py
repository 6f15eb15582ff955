# ResNet-50 with generalised-mean pooling and a projection to 512, on ImageNet-normalised RGB.
_base_ = './resnet50_avg.py'
model = dict(image_encoder=dict(pooling=dict(type='GeM', p=3.0)))
