import math

import pytest
import torch
from pytorch_metric_learning.miners import DistanceWeightedMiner
from torch.nn import functional

from retrieval.losses import DistanceWeightedTripletMiner
from retrieval.registry import MODELS

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])


def embeddings(width=8, count=8, seed=1):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def plain(rows, labels, cutoff=0.5, limit=1.4):
    """One over the density of the distance, a pair at a time."""
    rows = [row / row.norm() for row in rows.double()]
    width, table = len(rows[0]), []
    for i, row in enumerate(rows):
        distances = {j: float((row - other).norm()) for j, other in enumerate(rows)
                     if labels[i] != labels[j]}
        near = {j: max(d, cutoff) for j, d in distances.items() if d < limit}
        logs = {j: -(width - 2) * math.log(d) - (width - 3) / 2 * math.log(1 - d * d / 4)
                for j, d in near.items()} or dict.fromkeys(distances, 0.0)
        top = max(logs.values())
        total = sum(math.exp(value - top) for value in logs.values())
        table.append([math.exp(logs[j] - top) / total if j in logs else 0.0
                      for j in range(len(rows))])
    return torch.tensor(table)


@pytest.mark.parametrize('width', [3, 8, 64])
def test_probabilities_are_the_papers(width):
    x = embeddings(width)
    x[3] = x[0] + 0.3 * x[1]  # one pair nearer than the cutoff
    x[7] = -x[0]
    negative = LABELS[:, None] != LABELS[None]
    found = DistanceWeightedTripletMiner().probabilities(x, negative)
    torch.testing.assert_close(found, plain(x, LABELS).float(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.sum(1), torch.ones(8))


def test_every_positive_pair_gets_a_negative():
    anchors, positives, negatives = DistanceWeightedTripletMiner()(embeddings(), LABELS)
    wanted = [(i, j) for i in range(8) for j in range(8) if i != j and LABELS[i] == LABELS[j]]
    assert list(zip(anchors.tolist(), positives.tolist(), strict=True)) == wanted
    assert bool((LABELS[negatives] != LABELS[anchors]).all()) and negatives.dtype == torch.int64


def test_negatives_are_drawn_by_their_probability():
    x, miner = embeddings(), DistanceWeightedTripletMiner()
    chance = miner.probabilities(x, LABELS[:, None] != LABELS[None])
    counts = torch.zeros(8, 8)
    for _ in range(250):
        anchors, _, negatives = miner(x, LABELS)
        counts.index_put_((anchors, negatives), torch.ones(len(anchors)), accumulate=True)
    rows = counts.sum(1) > 0
    found = counts[rows] / counts[rows].sum(1, keepdim=True)
    torch.testing.assert_close(found, chance[rows], atol=0.12, rtol=0)


def test_references():
    references, ref_labels = embeddings(count=5, seed=2), torch.tensor([0, 1, 1, 9, 9])
    anchors, positives, negatives = DistanceWeightedTripletMiner()(
        embeddings(), LABELS, references, ref_labels)
    assert bool((ref_labels[positives] == LABELS[anchors]).all())
    assert bool((ref_labels[negatives] != LABELS[anchors]).all())
    assert len(anchors) == 3 * 1 + 2 * 2


@pytest.mark.parametrize('labels', [torch.zeros(8, dtype=torch.int64), torch.arange(8)])
def test_nothing_to_mine(labels):
    assert [len(part) for part in DistanceWeightedTripletMiner()(embeddings(), labels)] == [0] * 3


def test_no_anchor_is_lost_where_the_library_loses_most():
    """One pair of negatives that is near outweighs all others of the batch in 256 dimensions."""
    x = functional.normalize(embeddings(256, 32))
    x[4] = x[0] + 0.6 * x[4]
    labels = torch.arange(32) // 4
    assert DistanceWeightedTripletMiner()(x, labels)[0].unique().tolist() == list(range(32))
    assert len(DistanceWeightedMiner()(x, labels)[0].unique()) < 8


def test_with_the_margin_loss_from_a_config():
    head = MODELS.build(dict(type='retrieval.MetricHead', loss=dict(
        type='PML.MarginLoss', beta=1.2, margin=0.2, learn_beta=True, num_classes=4),
        miner=dict(type='retrieval.DistanceWeightedTripletMiner')))
    from retrieval.structures import RetrievalDataSample
    samples = [RetrievalDataSample().set_gt_label(int(label)) for label in LABELS]
    found = head.loss(embeddings().requires_grad_(), samples)
    found['loss'].backward()
    assert float(found['mined_triplets']) == 10
    assert torch.isfinite(head.losses['margin'].beta.grad).all()


@pytest.mark.parametrize('options', [dict(cutoff=0), dict(cutoff=1.5),
                                     dict(nonzero_loss_cutoff=2.0)])
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match='0 < cutoff < nonzero_loss_cutoff < 2'):
        DistanceWeightedTripletMiner(**options)
