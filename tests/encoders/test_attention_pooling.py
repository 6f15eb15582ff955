import math

import pytest
import torch
from torch import nn

from retrieval.encoders import AttentionPooling, ImageEncoder


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
