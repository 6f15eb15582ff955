_base_ = '../_base_/glyphs.py'
# Proxy-Anchor (Kim et al., CVPR 2020): margin 0.1, alpha 32. The proxies
# are drawn short here (0.04 a number), so that the network's own rate moves them fast enough.
# Batches are drawn at random, as there: by class each proxy would meet its own seven times.
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ProxyAnchorLoss', num_classes=1433, embedding_size=128,
                  margin=0.1, alpha=32)))
