_base_ = ['../_base_/methods/proxy_anchor.py', '../_base_/datasets/cars196_224.py']
# As they train ResNet-50: batches of 120, AdamW at 1e-4, halved every 10 epochs, the backbone held
# for 5 epochs, batch norms frozen.
model = dict(head=dict(loss=dict(num_classes=98)))
train_dataloader = dict(
    batch_size=120, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='StepLR',
                        step_size=1 / 6, gamma=0.5)]
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=5, norm_eval=True)]
