_base_ = ['../_base_/methods/normalized_softmax.py', '../_base_/datasets/cars196_224.py']
model = dict(head=dict(loss=dict(num_classes=98)))
train_dataloader = dict(batch_size=75, sampler=dict(m=25, batch_size=75))
