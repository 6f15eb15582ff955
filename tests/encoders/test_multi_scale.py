import pytest
import torch
from torch import nn
from torch.nn import functional

from retrieval.encoders import ImageEncoder, MultiScale, MultiScaleEncoder, WhiteningFit
from retrieval.registry import MODELS


def backbone():
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())


def encoder(**options):
    torch.manual_seed(1)
    return ImageEncoder(backbone(), projection=4, in_features=6, **options).eval()


def plain_views(images, scales, flip):
    for scale in scales:
        view = functional.interpolate(images, scale_factor=scale, mode='bilinear')
        yield view
        if flip:
            yield torch.flip(view, [-1])


@pytest.mark.parametrize('flip', [False, True])
def test_the_mean_of_normalised_embeddings_is_whitened_last(flip):
    scales, images = (1, 2 ** -0.5, 1.4), torch.rand(2, 3, 12, 10)
    plain = encoder()
    expected = sum(plain(view) for view in plain_views(images, scales, flip))
    expected = functional.normalize(expected)
    several = encoder(multi_scale=dict(scales=scales, flip=flip), whitening=3)
    torch.testing.assert_close(several(images), expected)  # whitening is not fitted yet

    mean, rows = torch.randn(4).double().numpy(), torch.randn(3, 4).double().numpy()
    several.whitening.set(WhiteningFit(mean, rows))
    whitened = (expected - torch.tensor(mean).float()) @ torch.tensor(rows).float().T
    torch.testing.assert_close(several(images), functional.normalize(whitened))


def test_training_sees_one_size_and_names_of_weights_stay():
    images = torch.rand(2, 3, 12, 12)
    plain, several = encoder(), encoder(multi_scale=(1, 0.5))
    assert list(plain.state_dict()) == list(several.state_dict())
    several.train()
    torch.testing.assert_close(several(images), plain(images))


def test_joining_equals_loops():
    embeddings = torch.randn(3, 2, 4)
    gem, top, mean = torch.empty(2, 4), torch.empty(2, 4), torch.empty(2, 4)
    for b in range(2):
        lowest = min(0., min(embeddings[v, b, d].item() for v in range(3) for d in range(4)))
        for d in range(4):
            values = [embeddings[v, b, d].item() for v in range(3)]
            mean[b, d], top[b, d] = sum(values) / 3, max(values)
            gem[b, d] = (sum((v - lowest) ** 2.5 for v in values) / 3) ** 0.4 + lowest
    assert torch.allclose(MultiScale(aggregate='mean').join(embeddings), mean)
    assert torch.equal(MultiScale(aggregate='max').join(embeddings), top)
    torch.testing.assert_close(MultiScale(aggregate='gem', p=2.5).join(embeddings), gem)
    positive = embeddings.abs()  # where nothing is negative: the generalised mean as published
    torch.testing.assert_close(MultiScale(aggregate='gem', p=2.5).join(positive),
                               positive.pow(2.5).mean(0).pow(1 / 2.5))


def test_other_encoders_are_wrapped():
    conv = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    wrapped = MODELS.build(dict(type='retrieval.MultiScaleEncoder', encoder=conv,
                                scales=(1, 0.5), flip=True)).eval()
    images = torch.rand(2, 3, 8, 8)
    expected = sum(functional.normalize(conv(view))
                   for view in plain_views(images, (1, 0.5), True))
    torch.testing.assert_close(wrapped(images), functional.normalize(expected))
    assert torch.equal(wrapped.train()(images), conv(images))
    with pytest.raises(ValueError, match='multi_scale='):
        MultiScaleEncoder(encoder())


@pytest.mark.parametrize('options, says', [
    (dict(scales=[0.5, 0]), 'above 0'),
    (dict(aggregate='median'), "'mean'"),
    (dict(aggregate='gem', p=0), 'power'),
])
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        MultiScale(**options)


def test_images_that_vanish():
    with pytest.raises(ValueError, match='no pixel left'):
        MultiScale((1, 0.1))(lambda view: view.flatten(1), torch.rand(1, 3, 8, 8))
