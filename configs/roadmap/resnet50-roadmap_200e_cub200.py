_base_ = ['../_base_/methods/roadmap.py', '../_base_/datasets/cub200_224.py']
# On this dataset at 5e-6, 200 epochs, maximum pooling.
model = dict(image_encoder=dict(pooling=dict(type='GlobalMaxPooling')))
train_dataloader = dict(batch_size=128, sampler=dict(m=4, batch_size=128))
optim_wrapper = dict(optimizer=dict(lr=5e-6))
train_cfg = dict(max_epochs=200)
