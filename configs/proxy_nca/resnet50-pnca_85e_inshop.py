_base_ = ['../_base_/methods/proxy_nca.py', '../_base_/datasets/inshop_224.py']
# On this dataset at 2.4e-2, for 5 epochs with the backbone held and 80 more.
model = dict(head=dict(loss=dict(num_classes=3997)))
train_dataloader = dict(batch_size=192, sampler=dict(m=3, batch_size=192))
optim_wrapper = dict(optimizer=dict(lr=2.4e-2))
train_cfg = dict(max_epochs=85)
