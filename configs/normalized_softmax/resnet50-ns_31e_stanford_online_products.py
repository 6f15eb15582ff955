_base_ = [
    '../_base_/methods/normalized_softmax.py', '../_base_/datasets/stanford_online_products_224.py']
model = dict(head=dict(loss=dict(num_classes=11318)))
train_dataloader = dict(batch_size=75, sampler=dict(m=5, batch_size=75))
