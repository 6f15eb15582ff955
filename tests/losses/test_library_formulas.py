"""The losses that are left to pytorch-metric-learning compute what their papers say.

Each is held against a plain loop, with the arguments that make it the paper's.
"""
from math import exp, log, sqrt

import pytest
import torch

from retrieval.registry import MODELS

LABELS = [0, 1, 0, 2, 1, 0, 2, 1]
C, D = 4, 5  # one class is not in the batch


def unit(rows):
    return [row / row.norm() for row in rows.detach().double()]


def batch():
    return torch.randn(8, D, generator=torch.Generator().manual_seed(2))


def library(kind, **options):
    return MODELS.build(dict(type=f'PML.{kind}', **options))


def value(loss, *indices):
    return float(loss(batch(), torch.tensor(LABELS), *indices).detach())


def same(i):
    return [j for j in range(8) if j != i and LABELS[j] == LABELS[i]]


def others(i):
    return [j for j in range(8) if LABELS[j] != LABELS[i]]


S = [[float(a @ b) for b in unit(batch())] for a in unit(batch())]


def test_proxy_anchor():
    """S. Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020."""
    loss = library('ProxyAnchorLoss', num_classes=C, embedding_size=D, margin=0.1, alpha=32)
    x, pull, push = unit(batch()), [], []
    for number, proxy in enumerate(unit(loss.proxies)):
        s = [float(row @ proxy) for row in x]
        mine = [exp(-32 * (s[i] - 0.1)) for i in range(8) if LABELS[i] == number]
        if mine:
            pull.append(log(1 + sum(mine)))
        push.append(log(1 + sum(exp(32 * (s[i] + 0.1)) for i in range(8) if LABELS[i] != number)))
    assert value(loss) == pytest.approx(sum(pull) / len(pull) + sum(push) / C, rel=1e-4)


def test_proxy_nca_plus_plus():
    """E. W. Teh et al., "ProxyNCA++", ECCV 2020: temperature 1/9, all proxies in the sum."""
    loss = library('ProxyNCALoss', num_classes=C, embedding_size=D, softmax_scale=9)
    proxies, total = unit(loss.proxies), 0.0
    for row, label in zip(unit(batch()), LABELS, strict=True):
        weights = [exp(-9 * float((row - proxy).square().sum())) for proxy in proxies]
        total -= log(weights[label] / sum(weights))
    assert value(loss) == pytest.approx(total / 8, rel=1e-4)


def test_multi_similarity():
    """X. Wang et al., "Multi-Similarity Loss", CVPR 2019, with its mining."""
    loss = library('MultiSimilarityLoss', alpha=2, beta=50, base=0.5)
    miner = library('MultiSimilarityMiner', epsilon=0.1)
    total = mined = 0.0
    for i in range(8):
        def term(kept_same, kept_others, row=S[i]):
            out = log(1 + sum(exp(-2 * (row[j] - 0.5)) for j in kept_same)) / 2 if kept_same else 0
            return out + (log(1 + sum(exp(50 * (row[j] - 0.5)) for j in kept_others)) / 50
                          if kept_others else 0)
        total += term(same(i), others(i))
        mined += term([j for j in same(i) if S[i][j] - 0.1 < max(S[i][k] for k in others(i))],
                      [j for j in others(i) if S[i][j] + 0.1 > min(S[i][k] for k in same(i))])
    assert value(loss) == pytest.approx(total / 8, rel=1e-4)
    assert value(loss, miner(batch(), torch.tensor(LABELS))) == pytest.approx(mined / 8, rel=1e-4)


def test_supervised_contrastive():
    """P. Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020: the sum outside."""
    total = 0.0
    for i in range(8):
        everyone = log(sum(exp(S[i][j] / 0.1) for j in range(8) if j != i))
        total -= sum(S[i][j] / 0.1 - everyone for j in same(i)) / len(same(i))
    assert value(library('SupConLoss', temperature=0.1)) == pytest.approx(total / 8, rel=1e-4)


def test_soft_triple():
    """Q. Qian et al., "SoftTriple Loss", ICCV 2019, with the regularizer of its centres."""
    loss = library('SoftTripleLoss', num_classes=C, embedding_size=D, centers_per_class=3, la=20,
                   gamma=0.1, margin=0.01, weight_reg_weight=0.2, weight_regularizer=dict(
                       type='SparseCentersRegularizer', num_classes=C, centers_per_class=3))
    centres = unit(loss.fc.T)
    centres = [centres[3 * c:3 * c + 3] for c in range(C)]
    total = 0.0
    for row, label in zip(unit(batch()), LABELS, strict=True):
        logits = []
        for c in range(C):
            s = [float(row @ centre) for centre in centres[c]]
            weights = [exp(one / 0.1) for one in s]
            relaxed = sum(w * one for w, one in zip(weights, s, strict=True)) / sum(weights)
            logits.append(20 * (relaxed - (0.01 if c == label else 0)))
        total -= logits[label] - log(sum(map(exp, logits)))
    spread = sum(sqrt(2 - 2 * float(own[a] @ own[b])) for own in centres
                 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert value(loss) == pytest.approx(total / 8 + 0.2 * spread / (C * 3 * 2), rel=1e-4)


def test_circle():
    """Y. Sun et al., "Circle Loss", CVPR 2020, for pairs; the weights have no gradient."""
    m, gamma, losses = 0.4, 20, []
    for i in range(8):
        pull = sum(exp(-gamma * max(1 + m - S[i][j], 0) * (S[i][j] - 1 + m)) for j in same(i))
        push = sum(exp(gamma * max(S[i][j] + m, 0) * (S[i][j] - m)) for j in others(i))
        losses.append(log(1 + pull * push))
    loss = library('CircleLoss', m=m, gamma=gamma)
    assert value(loss) == pytest.approx(sum(losses) / 8, rel=1e-4)


def test_margin():
    """C.-Y. Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017: thresholds by
    class, over the pairs that have a loss."""
    loss = library('MarginLoss', margin=0.2, beta=1.0, num_classes=C, learn_beta=True)
    loss.beta.data.copy_(torch.tensor([0.8, 1.0, 1.2, 1.0]))
    triplets = [(i, same(i)[0], others(i)[n % len(others(i))]) for n, i in enumerate(range(8))]
    total = count = 0
    for a, p, n in triplets:
        beta = float(loss.beta.detach()[LABELS[a]])
        for part in (0.2 + sqrt(2 - 2 * S[a][p]) - beta, 0.2 + beta - sqrt(2 - 2 * S[a][n])):
            total, count = total + max(part, 0), count + (part > 0)
    indices = tuple(torch.tensor(column) for column in zip(*triplets, strict=True))
    assert value(loss, indices) == pytest.approx(total / count, rel=1e-4)
