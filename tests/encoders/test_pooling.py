import math

import pytest
import torch
from torch import nn

from retrieval.encoders import (
    RMAC,
    AttentionPooling,
    ClsTokenPooling,
    GeMPlus,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
    ImageEncoder,
    PartsPooling,
    RegionalGeM,
    SPoC,
)
from retrieval.encoders.pooling import regions
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


def by_hand(pooling, tokens):
    """One image's tokens ``(N, C)``, pooled head by head."""
    layer, width = pooling.attention, tokens.shape[1]
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    query, keys, values = (rows @ weight.T + bias for rows, weight, bias in zip(
        (pooling.query[0], tokens, tokens), weights, biases, strict=True))
    size, parts = width // layer.num_heads, []
    for head in range(layer.num_heads):
        mine = slice(head * size, (head + 1) * size)
        scores = [math.exp(float(key[mine] @ query[0, mine]) / math.sqrt(size)) for key in keys]
        parts.append(sum(score / sum(scores) * value[mine]
                         for score, value in zip(scores, values, strict=True)))
    return layer.out_proj(torch.cat(parts))


def test_attention_equals_a_loop_over_heads_for_maps_and_tokens():
    pooling = AttentionPooling(8, num_heads=2).eval()
    nn.init.normal_(pooling.attention.in_proj_bias)
    features = torch.randn(2, 8, 3, 2)
    tokens = features.flatten(2).transpose(1, 2)
    with torch.no_grad():
        expected = torch.stack([by_hand(pooling, one) for one in tokens])
        torch.testing.assert_close(pooling(features), expected)
        pooling.num_prefix_tokens = 1
        before = torch.cat([torch.randn(2, 1, 8), tokens], dim=1)
        torch.testing.assert_close(pooling(before), expected)


def test_the_encoder_tells_the_width_and_the_query_learns():
    backbone = nn.Conv2d(3, 8, 3)
    encoder = ImageEncoder(backbone, dict(type='AttentionPooling', num_heads=4), in_features=8)
    encoder(torch.rand(2, 3, 6, 6))[:, 0].sum().backward()
    assert encoder.pooling.query.grad.abs().sum() > 0 and encoder.embedding_size == 8


def test_bad_widths():
    with pytest.raises(ValueError, match=r'\[1, 2, 5, 10\]'):
        AttentionPooling(10)
    with pytest.raises(ValueError, match='in_features'):
        AttentionPooling(8)(torch.rand(1, 4, 2, 2))


def published_regions(height, width, levels):
    """The windows as the authors' code walks over them, in floating point."""
    steps = torch.arange(2., 8.)
    short = min(height, width)
    between = (max(height, width) - short) / (steps - 1)
    index = int((((short ** 2 - short * between) / short ** 2) - 0.4).abs().argmin())
    more_down = index + 1 if height > width else 0
    more_across = index + 1 if width > height else 0
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        half = math.floor(side / 2 - 1)

        def corners(size, count, side=side, half=half):
            step = 0 if count == 1 else (size - side) / (count - 1)
            return [math.floor(half + i * step + 1e-9) - half for i in range(count)]

        for top in corners(height, level + more_down):
            for left in corners(width, level + more_across):
                yield top, left, side


@pytest.mark.parametrize('size', [(7, 7), (6, 9), (12, 5), (4, 30), (16, 21)])
@pytest.mark.parametrize('levels', [1, 3, 4])
def test_regions_are_those_of_the_authors(size, levels):
    found = regions(*size, levels)
    assert found == list(published_regions(*size, levels))
    assert all(top + side <= size[0] and left + side <= size[1] for top, left, side in found)


def test_a_map_narrower_than_a_region():
    """Seven regions overlap most nearly by 40 %; at level 2 a region would have no width."""
    assert regions(1, 5, 3) == [(0, i * 4 // 6, 1) for i in range(7)]


def test_rmac_sums_the_normalised_maxima():
    features = torch.rand(2, 4, 5, 8)
    expected = torch.zeros(2, 4)
    for picture, total in zip(features, expected, strict=True):
        for top, left, height, width in [(0, 0, 5, 8), *(
                (t, x, s, s) for t, x, s in published_regions(5, 8, 2))]:
            maxima = [max(picture[c, y, x].item() for y in range(top, top + height)
                          for x in range(left, left + width)) for c in range(4)]
            length = math.sqrt(sum(value ** 2 for value in maxima))
            total += torch.tensor([value / length for value in maxima])
    torch.testing.assert_close(RMAC(levels=2)(features), expected)
    torch.testing.assert_close(RMAC(levels=2)((None, features)), expected)
    square = torch.rand(1, 3, 4, 4)
    tokens = square.flatten(2).transpose(1, 2)
    torch.testing.assert_close(RMAC()(tokens), RMAC()(square))


def test_regional_gem_is_the_mean_with_torchs_power_pooling():
    features = torch.rand(2, 3, 6, 5)
    pool = nn.LPPool2d(2.5, 5, stride=1)
    around = pool(nn.ReflectionPad2d(2)(features / 25 ** (1 / 2.5)))
    torch.testing.assert_close(RegionalGeM()(features), 0.5 * features + 0.5 * around)
    tokens = features[:, :, :5].flatten(2).transpose(1, 2)
    assert RegionalGeM(size=3)(tokens).shape == (2, 3, 5, 5)
    assert torch.isfinite(RegionalGeM()(-features)).all()


@pytest.mark.parametrize('make, says', [
    (lambda: RMAC(levels=0), 'levels'),
    (lambda: RegionalGeM(size=4), 'odd'),
    (lambda: RegionalGeM(p=0), 'above 0'),
    (lambda: RegionalGeM()(torch.rand(1, 2, 2, 9)), 'too small'),
    (lambda: RMAC()(torch.rand(1, 7, 3)), 'no square'),
    (lambda: RMAC()(torch.rand(1, 7)), 'pooling=None'),
])
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_parts_are_the_pooled_regions():
    features = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    pooled = PartsPooling(dict(type='retrieval.MAC'), levels=(2, 3))(features)
    assert pooled.shape == (2, 14, 3)
    torch.testing.assert_close(pooled[:, 0], features.amax((2, 3)))
    # two by two parts of 4 rows and 5 columns, rounded: columns 0 to 5 and 3 to 8
    torch.testing.assert_close(pooled[:, 1], features[:, :, :4, :5].amax((2, 3)))
    torch.testing.assert_close(pooled[:, 4], features[:, :, 2:, 3:].amax((2, 3)))
    # three by three of 3 rows and 4 columns
    torch.testing.assert_close(pooled[:, 9], features[:, :, 2:5, 2:6].amax((2, 3)))
    assert all(torch.isfinite(PartsPooling()(torch.rand(1, 2, *size))).all()
               for size in ((1, 1), (1, 7), (2, 2)))


def test_an_encoder_of_parts_puts_them_behind_one_another():
    encoder = ImageEncoder(nn.Conv2d(3, 8, 4, 4), PartsPooling(levels=(2,)), in_features=8,
                           projection=6, multi_scale=dict(scales=(1, 0.5), aggregate='gem')).eval()
    found = encoder(torch.rand(2, 3, 32, 48))
    assert found.shape == (2, 30) and encoder.embedding_size == 30 and encoder.parts == 5
    torch.testing.assert_close(found.unflatten(1, (5, 6)).norm(dim=2), torch.ones(2, 5))
    with pytest.raises(ValueError, match='5 vectors'):
        encoder.up_to('projection')
    with pytest.raises(ValueError, match='levels'):
        PartsPooling(levels=(1,))
