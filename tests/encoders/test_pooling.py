import math

import pytest
import torch

from retrieval.encoders import (
    ClsTokenPooling,
    GeMPlus,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
    ImageEncoder,
    SPoC,
)
from retrieval.registry import MODELS


def loop(features, reduce):
    """One number a row and channel, from the plain list of its positions."""
    batch, channels = features.shape[:2]
    return torch.tensor([[reduce([v.item() for v in features[b, c].flatten()])
                          for c in range(channels)] for b in range(batch)])


def generalized_mean(values, p=3.0, eps=1e-6):
    return (sum(max(v, eps) ** p for v in values) / len(values)) ** (1 / p)


POOLINGS = [
    (GlobalAveragePooling(), lambda values: math.fsum(values) / len(values)),
    (GlobalMaxPooling(), max),
    (GeneralizedMeanPooling(), generalized_mean),
    (GeneralizedMeanPooling(p=1.7, eps=0.1), lambda v: generalized_mean(v, 1.7, 0.1)),
    (SPoC(), math.fsum),
    (GeMPlus(), lambda v: generalized_mean(v, 4.6, 1e-8)),
]


@pytest.mark.parametrize('pooling, reduce', POOLINGS)
def test_maps_and_tokens_pool_like_a_plain_loop(pooling, reduce):
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = loop(features, reduce)
    torch.testing.assert_close(pooling(features), expected)
    tokens = features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooling(tokens), expected)
    torch.testing.assert_close(pooling((torch.rand(2, 9, 8, 8), features)), expected)
    torch.testing.assert_close(pooling(features[:1]), expected[:1])


def test_prefix_tokens_are_left_out():
    tokens = torch.rand(2, 7, 3)
    for cls in (GlobalAveragePooling, GlobalMaxPooling, GeneralizedMeanPooling):
        torch.testing.assert_close(cls(num_prefix_tokens=2)(tokens), cls()(tokens[:, 2:]))


def test_the_class_token_is_the_first():
    tokens = torch.rand(2, 7, 3)
    assert torch.equal(ClsTokenPooling()(tokens), tokens[:, 0])
    with pytest.raises(ValueError, match='no class token'):
        ClsTokenPooling()(torch.rand(2, 3, 4, 4))


def test_gem_reaches_from_the_mean_to_the_maximum():
    features = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(GeneralizedMeanPooling(p=1)(features), features.mean((2, 3)))
    near = GeneralizedMeanPooling(p=60)(features)
    assert (near - features.amax((2, 3))).abs().max() < 0.06


def test_gem_learns_its_power():
    pooling = GeneralizedMeanPooling()
    features = torch.rand(1, 2, 3, 3, dtype=torch.float32)
    pooling(features).sum().backward()
    values = [[v.item() for v in features[0, c].flatten()] for c in range(2)]
    step = 1e-5
    slope = sum(generalized_mean(v, 3 + step) - generalized_mean(v, 3 - step)
                for v in values) / (2 * step)
    assert pooling.p.grad.item() == pytest.approx(slope, rel=1e-3)
    assert not GeneralizedMeanPooling(p_trainable=False).p.requires_grad
    assert list(pooling.state_dict()) == ['p'] and pooling.p.shape == (1,)


def test_half_precision_is_pooled_in_float32():
    features = torch.rand(2, 3, 7, 7).bfloat16()
    for pooling, reduce in POOLINGS[:3]:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            out = pooling(features)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, loop(features.float(), reduce))


def test_the_centre_prior_of_spoc_weighs_the_middle():
    features = torch.rand(2, 3, 4, 6)
    expected = torch.zeros(2, 3)
    spread = min(4, 6) / 2 / 3
    for y in range(4):
        for x in range(6):
            squared = (y + 0.5 - 2) ** 2 + (x + 0.5 - 3) ** 2
            expected += features[:, :, y, x] * math.exp(-squared / (2 * spread ** 2))
    pooling = SPoC(center_prior=True)
    torch.testing.assert_close(pooling(features), expected)
    square = torch.rand(2, 3, 3, 3)
    tokens = torch.cat([torch.rand(2, 1, 3), square.flatten(2).transpose(1, 2)], dim=1)
    told = SPoC(center_prior=True, num_prefix_tokens=1)
    torch.testing.assert_close(told(tokens), pooling(square))
    with pytest.raises(ValueError, match='10 patch tokens are no square'):
        pooling(tokens)


def test_the_power_of_gem_plus_is_a_setting():
    pooling = GeMPlus(p=2.5)
    assert not list(pooling.parameters()) and not pooling.state_dict()
    learned = GeneralizedMeanPooling(p=3.0)
    pooling.load_state_dict(learned.state_dict())  # a checkpoint that was trained with GeM
    features = torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(pooling(features), GeneralizedMeanPooling(p=2.5)(features))


def test_poolings_in_a_row_are_told_of_prefix_tokens():
    class Tokens(torch.nn.Module):
        num_features, num_prefix_tokens = 3, 2

        def forward(self, images):
            return images.flatten(2).transpose(1, 2)

    encoder = ImageEncoder(Tokens(), [dict(type='RegionalGeM', size=3), dict(type='GeM+')])
    assert [part.num_prefix_tokens for part in encoder.pooling] == [2, 2]


def test_names():
    assert MODELS.get('GeM') is MODELS.get('GeneralizedMeanPooling') is GeneralizedMeanPooling
    assert MODELS.get('MAC') is GlobalMaxPooling and MODELS.get('GeM+') is GeMPlus
    assert isinstance(MODELS.build(dict(type='retrieval.GlobalMaxPooling')), GlobalMaxPooling)


@pytest.mark.parametrize('features, error, says', [
    (torch.rand(2, 3), ValueError, 'pooling=None'),
    ('map', TypeError, 'str'),
    ((), TypeError, 'tuple'),
    ((torch.rand(2, 3, 4, 4), None), TypeError, 'NoneType'),
])
def test_bad_features(features, error, says):
    with pytest.raises(error, match=says):
        GlobalAveragePooling()(features)


def test_bad_powers():
    for options in (dict(p=0), dict(p=-1), dict(eps=0)):
        with pytest.raises(ValueError, match='above 0'):
            GeneralizedMeanPooling(**options)
