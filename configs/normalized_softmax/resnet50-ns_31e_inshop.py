_base_ = ['../_base_/methods/normalized_softmax.py', '../_base_/datasets/inshop_224.py']
model = dict(head=dict(loss=dict(num_classes=3997)))
train_dataloader = dict(batch_size=75, sampler=dict(m=5, batch_size=75))
