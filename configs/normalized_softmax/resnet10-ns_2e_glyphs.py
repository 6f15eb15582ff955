_base_ = '../_base_/glyphs.py'
# Normalised softmax (Zhai and Wu, BMVC 2019): temperature 0.05 at the start, and learned; proxies
# at ten times the learning rate.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='LearnableTemperatureSoftmaxLoss', num_classes=1433,
                  embedding_size=128, temperature=0.05)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={
    'head.losses': dict(lr_mult=10, decay_mult=0), 'log_temperature': dict(decay_mult=0)}))
