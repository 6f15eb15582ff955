_base_ = ['../_base_/methods/roadmap.py', '../_base_/datasets/cars196_224.py']
# The paper does not train on this dataset, 150 epochs are chosen.
train_dataloader = dict(batch_size=128, sampler=dict(m=4, batch_size=128))
train_cfg = dict(max_epochs=150)
