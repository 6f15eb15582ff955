_base_ = ['../_base_/methods/proxy_anchor.py', '../_base_/datasets/inshop_224.py']
# As they train BN-Inception on this dataset: batches of 180, AdamW at 6e-4, a quarter every 20
# epochs, the backbone held for 1 epoch.
model = dict(head=dict(loss=dict(num_classes=3997)))
train_dataloader = dict(
    batch_size=180, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
optim_wrapper = dict(optimizer=dict(lr=6e-4))
param_scheduler = [dict(type='ShareOfRun', by_epoch=False, schedule='StepLR',
                        step_size=1 / 3, gamma=0.25)]
custom_hooks = [*_base_.custom_hooks, dict(
    type='FreezeHook', modules='image_encoder.backbone', epochs=1)]
