_base_ = ['../_base_/methods/normalized_softmax.py', '../_base_/datasets/cub200_224.py']
model = dict(head=dict(loss=dict(num_classes=100)))
train_dataloader = dict(batch_size=75, sampler=dict(m=25, batch_size=75))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
