_base_ = ['../_base_/methods/triplet.py', '../_base_/datasets/inshop_224.py']
# In-Shop is not in that paper; it is trained as Stanford Online Products.
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
