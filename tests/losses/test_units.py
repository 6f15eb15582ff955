"""The units of docs/losses.md: each angle is computed here in the unit that the page names."""
import math
import re
from pathlib import Path

import pytest
import torch

from retrieval.heads import MetricHead
from retrieval.structures import RetrievalDataSample

from .test_every_loss import LOSSES

PAGE = Path(__file__).parents[2] / 'docs' / 'losses.md'
LABELS = [0, 1, 2, 2]
WEIGHTED = dict(num_classes=3, embedding_size=4)


def value(loss, length=None, **options):
    """A loss, its module, and the embeddings that it was computed of."""
    torch.manual_seed(0)
    head = MetricHead(dict(type=f'PML.{loss}', **options))
    embeddings = torch.randn(4, 4)
    if length is not None:
        embeddings *= length / embeddings.norm(dim=1, keepdim=True)
    out = head.loss(embeddings, samples())
    return out['loss'].item(), next(iter(head.losses.values())), embeddings


def samples():
    return [RetrievalDataSample().set_gt_label(label) for label in LABELS]


def softmax_loss(embeddings, weights, change, scale):
    """The mean cross entropy over cosines to columns, where ``change`` makes the target's."""
    total = 0.0
    for row, label in zip(embeddings, LABELS, strict=True):
        cosines = torch.cosine_similarity(row[None], weights.T).tolist()
        cosines[label] = change(cosines[label])
        factor = scale(row)
        logits = [factor * cosine for cosine in cosines]
        top = max(logits)
        total += top + math.log(sum(math.exp(x - top) for x in logits)) - logits[label]
    return total / len(LABELS)


def in_degrees(margin):
    def change(cosine):
        angle = math.degrees(math.acos(cosine)) + margin
        shift = math.radians(margin)
        return math.cos(math.radians(angle)) if angle <= 180 else cosine - shift * math.sin(shift)
    return change


def multiplied(times):
    """Liu et al., SphereFace (2017), below eq. 6: (-1)^k cos(m θ) - 2 k."""
    def change(cosine):
        angle = math.acos(cosine)
        k = math.floor(angle * times / math.pi)
        return (-1)**k * math.cos(times * angle) - 2 * k
    return change


@pytest.mark.parametrize('loss, options, change, scale', [
    ('ArcFaceLoss', dict(margin=30, scale=16), in_degrees(30), lambda row: 16),
    ('SubCenterArcFaceLoss', dict(margin=30, scale=16, sub_centers=1), in_degrees(30),
     lambda row: 16),
    ('CosFaceLoss', dict(margin=0.2, scale=16), lambda cosine: cosine - 0.2, lambda row: 16),
    ('SphereFaceLoss', dict(margin=3, scale=2), multiplied(3), lambda row: 2 * row.norm().item()),
    ('SphereFaceLoss', dict(margin=3.9, scale=2), multiplied(3), lambda row: 2 * row.norm().item()),
    ('NormalizedSoftmaxLoss', dict(temperature=0.1), lambda cosine: cosine, lambda row: 10),
])
def test_margins_of_class_weights(loss, options, change, scale):
    found, module, embeddings = value(loss, **WEIGHTED, **options)
    assert found == pytest.approx(softmax_loss(embeddings, module.W.detach(), change, scale),
                                  rel=1e-4)


def test_the_multiplier_of_large_margin_softmax():
    found, module, embeddings = value('LargeMarginSoftmaxLoss', **WEIGHTED, margin=2)
    module.W.data /= module.W.norm(dim=0)
    found = MetricHead(module).loss(embeddings, samples())['loss'].item()
    assert found == pytest.approx(softmax_loss(
        embeddings, module.W.detach(), multiplied(2), lambda row: row.norm().item()), rel=1e-4)


def positive_pairs(embeddings):
    """Of each ordered pair of one class: the unit vectors of anchor and positive, the others."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    return [(unit[a], unit[p], unit[[n for n in range(4) if LABELS[n] != LABELS[a]]])
            for a in range(4) for p in range(4) if a != p and LABELS[a] == LABELS[p]]


def test_the_angle_of_the_angular_loss_is_in_degrees():
    """Wang et al. (2017), eq. 8, of vectors of length 1: the library leaves the negatives' be."""
    found, _, embeddings = value('AngularLoss', length=1, alpha=35)
    square = math.tan(math.radians(35)) ** 2
    terms = [math.log(1 + sum(math.exp(
        4 * square * float((a + p) @ n) - 2 * (1 + square) * float(a @ p)) for n in others))
        for a, p, others in positive_pairs(embeddings)]
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_the_margin_of_the_tuplet_loss_is_in_degrees():
    """Yu and Tao (2019), eq. 4."""
    found, _, embeddings = value('TupletMarginLoss', margin=10, scale=8)
    terms = [math.log(1 + sum(math.exp(8 * (
        float(a @ n) - math.cos(math.acos(float(a @ p)) - math.radians(10)))) for n in others))
        for a, p, others in positive_pairs(embeddings)]
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_the_angle_of_the_angular_miner_is_in_degrees():
    """A right-angled triangle: the negative sees half the positive pair under 45 degrees."""
    from retrieval.losses.pml import build_component
    embeddings = torch.tensor([[1., 1.], [-1., 1.], [0., 0.]])
    distance = dict(type='LpDistance')
    found = {angle: len(build_component(dict(type='PML.AngularMiner', angle=angle,
                                             distance=distance))(
        embeddings, torch.tensor([0, 0, 1]))[0]) for angle in (44, 46)}
    assert found == {44: 2, 46: 0}


def test_the_page_names_every_loss():
    named = set(re.findall(r'`(\w+)`', PAGE.read_text()))
    assert set(LOSSES) <= named
