_base_ = ['../_base_/methods/smooth_ap.py', '../_base_/datasets/cars196_224.py']
# The batch is the default of the code; the paper does not train on this dataset.
train_dataloader = dict(batch_size=112, sampler=dict(m=4, batch_size=112))
