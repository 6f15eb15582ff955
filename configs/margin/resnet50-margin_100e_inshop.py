_base_ = ['../_base_/methods/margin.py', '../_base_/datasets/inshop_224.py']
# In-Shop is not in that paper; it is trained as Stanford Online Products.
model = dict(head=dict(loss=dict(num_classes=3997)))
train_dataloader = dict(batch_size=112, sampler=dict(m=2, batch_size=112))
