"""Every loss and miner of the installed library trains a small encoder, from config."""
import inspect

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import nn

from retrieval.heads import MetricHead
from retrieval.structures import RetrievalDataSample

CLASSES, EACH, INPUT, WIDTH = 4, 4, 6, 8
WEIGHTED = dict(num_classes=CLASSES, embedding_size=WIDTH)
PAIRS = dict(type='ContrastiveLoss', neg_margin=1)

# What a loss is trained with; nothing where its defaults do.
OPTIONS = {
    'ArcFaceLoss': WEIGHTED,
    'CosFaceLoss': WEIGHTED,
    'LargeMarginSoftmaxLoss': WEIGHTED,
    'NormalizedSoftmaxLoss': WEIGHTED,
    'ProxyAnchorLoss': WEIGHTED,
    'ProxyNCALoss': WEIGHTED,
    'SoftTripleLoss': WEIGHTED,
    'SphereFaceLoss': WEIGHTED,
    'SubCenterArcFaceLoss': WEIGHTED,
    'P2SGradLoss': dict(num_classes=CLASSES, descriptors_dim=WIDTH),
    # with its default margin, terms that sink below zero make others count: it need not fall
    'ManifoldLoss': dict(l=WIDTH, K=CLASSES, margin=0.05),
    'RankedListLoss': dict(margin=0.4, Tn=1),
    # between vectors of length 1 this loss has a floor, of more than 0.7 of the first value here
    'GeneralizedLiftedStructureLoss': dict(
        distance=dict(type='LpDistance', normalize_embeddings=False)),
    'MultipleLosses': dict(losses=[PAIRS, dict(type='NTXentLoss')]),
    'CrossBatchMemory': dict(loss=PAIRS, embedding_size=WIDTH, memory_size=CLASSES * EACH),
    'SelfSupervisedLoss': dict(loss=dict(type='NTXentLoss')),
}
TWO_VIEWS = {'SelfSupervisedLoss', 'VICRegLoss'}

# What MetricHead cannot train to 0.8 of the first loss, and why.
EXCEPTIONS = {
    'BaseLossWrapper': 'an abstract base class',
    'BaseMetricLossFunction': 'an abstract base class',
    'GenericPairLoss': 'an abstract base class',
    'EmbeddingRegularizerMixin': 'a mixin',
    'WeightRegularizerMixin': 'a mixin',
}


MINER_OPTIONS = {
    'PairMarginMiner': dict(pos_margin=0.1, neg_margin=1.2),
    'DistanceWeightedMiner': dict(cutoff=0.1, nonzero_loss_cutoff=1.9),
    'HDCMiner': dict(filter_percentage=0.3),
}
MINER_EXCEPTIONS = {
    'BaseMiner': 'an abstract base class',
    'EmbeddingsAlreadyPackagedAsTriplets': 'its batches are triplets: a test of its own',
}


def data():
    """Well separated classes, in two views."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.eye(CLASSES, INPUT) + 0.5
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    views = [centres[labels] + 0.3 * torch.randn(len(labels), INPUT, generator=generator)
             for _ in range(2)]
    samples = [RetrievalDataSample().set_gt_label(int(label)) for label in labels]
    return views, samples


def train(head, two_views=False, rows=slice(None)):
    """The loss of every step; random draws are the same in each."""
    torch.manual_seed(0)
    encoder = nn.Linear(INPUT, WIDTH)
    views, samples = data()
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    values = []
    for _ in range(20):
        torch.manual_seed(1)
        feats = [encoder(view[rows]) for view in views[:1 + two_views]]
        out = head.loss(feats if two_views else feats[0],
                        [samples[row] for row in torch.arange(len(samples))[rows]])
        optimizer.zero_grad()
        out['loss'].backward()
        assert encoder.weight.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in head.parameters())
        optimizer.step()
        values.append(out['loss'].item())
    return values


def falls(values):
    """To 0.8 of the first; a loss that may be negative, by as much."""
    return values[0] != 0 and values[-1] <= values[0] - 0.2 * abs(values[0])


def public_classes(module):
    return {name: cls for name, cls in vars(module).items() if inspect.isclass(cls)}


LOSSES = sorted(set(public_classes(losses)) - set(EXCEPTIONS))
MINERS = sorted(set(public_classes(miners)) - set(MINER_EXCEPTIONS))


def test_every_class_of_the_library_is_trained_or_listed():
    """What a new release adds is trained below, and fails there until it is given its options."""
    assert len(LOSSES) >= 35 and len(MINERS) >= 9
    assert set(EXCEPTIONS) <= set(public_classes(losses))
    assert set(MINER_EXCEPTIONS) <= set(public_classes(miners))
    assert set(OPTIONS) | TWO_VIEWS <= set(LOSSES)
    assert set(MINER_OPTIONS) <= set(MINERS)


def build(name):
    torch.manual_seed(1)
    return MetricHead(dict(type=f'PML.{name}', **OPTIONS.get(name, {})))


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_falls(name):
    values = train(build(name), name in TWO_VIEWS)
    assert falls(values), (values[0], values[-1])


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_is_computed_in_float32(name):
    views, samples = data()
    halves = [view[:, [0, 1, 2, 3, 4, 5, 0, 1]].bfloat16() for view in views]
    found = []
    for autocast in (False, True):
        head = build(name)
        feats = halves if autocast else [half.float() for half in halves]
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            out = head.loss(feats if name in TWO_VIEWS else feats[0], samples)['loss']
        found.append(out)
    assert found[1].dtype == torch.float32 and torch.equal(*found)


@pytest.mark.parametrize('name', MINERS)
def test_a_miner_chooses_what_a_loss_learns_from(name):
    config = dict(type=f'PML.{name}', **MINER_OPTIONS.get(name, {}))
    values = train(MetricHead(dict(type='PML.MarginLoss', beta=0.8), miner=config))
    assert falls(values), (values[0], values[-1])


def test_batches_that_are_triplets():
    head = MetricHead(dict(type='PML.TripletMarginLoss', margin=0.5),
                      miner=dict(type='PML.EmbeddingsAlreadyPackagedAsTriplets'))
    rows = [row for first in range(0, 16, 4) for row in (first, first + 1, (first + 6) % 16)]
    assert falls(train(head, rows=rows))
