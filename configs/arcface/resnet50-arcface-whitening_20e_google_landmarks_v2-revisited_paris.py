_base_ = './resnet50-arcface_20e_google_landmarks_v2-revisited_paris.py'
# The ArcFace recipe with a whitening, which tools/fit_whitening.py fits to the trained encoder (see
# docs/recipes.md), and with three sizes of each test image, joined before it, as in Cao et al.
# (Unifying Deep Local and Global Features, ECCV 2020). They learn a linear layer instead.
model = dict(image_encoder=dict(
    whitening=512, multi_scale=dict(scales=(2 ** -0.5, 1.0, 2 ** 0.5))))
