_base_ = [
    '../_base_/methods/multi_similarity.py', '../_base_/datasets/stanford_online_products_224.py']
# Batches, rate and weight decay are those with which the authors' code trains ResNet-50; pooling,
# schedule and AdamW instead of Adam are chosen.
train_dataloader = dict(batch_size=80, sampler=dict(m=5, batch_size=80))
optim_wrapper = dict(optimizer=dict(lr=3e-5, weight_decay=5e-4))
