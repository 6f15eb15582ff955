# MoCo (He et al., CVPR 2020) with the projector of MoCo v2, from pictures without classes. The
# paper's momentum of 0.999 is for some 10^6 iterations; these are about 300.
_base_ = ['../self_supervised/resnet10-ntxent_2e_glyphs.py']
model = dict(
    type='MomentumRetriever',
    head=None,  # InfoNCE
    queue_size=4096,
    momentum=0.99,
    temperature=0.2)
