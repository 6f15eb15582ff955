import pytest
import torch
from pytorch_metric_learning import losses
from torch import nn

from retrieval.heads import MetricHead
from retrieval.heads.extra import taken_extra
from retrieval.structures import RetrievalDataSample


def samples(labels):
    return [RetrievalDataSample().set_gt_label(label) for label in labels]


@pytest.fixture
def batch():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), [0, 0, 1, 1, 2, 2]


@pytest.fixture
def reference():
    return (torch.randn(5, 4, generator=torch.Generator().manual_seed(1)),
            torch.tensor([0, 1, 1, 2, 0]))


def contrastive(embeddings, labels, others, other_labels):
    """Distances of positive pairs, and what negatives lack to a distance of 1: the means of those
    above zero, by a plain loop."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    other = others / others.norm(dim=1, keepdim=True)
    positive, negative = [], []
    for a, label in enumerate(labels):
        for b, other_label in enumerate(other_labels):
            distance = (unit[a] - other[b]).norm().item()
            (positive if label == other_label else negative).append(
                distance if label == other_label else max(0.0, 1 - distance))
    return sum(sum(values) / max(1, sum(value > 0 for value in values))
               for values in (positive, negative))


def test_a_reference_set_takes_the_place_of_the_batch(batch, reference):
    embeddings, labels = batch
    others, other_labels = reference
    out = MetricHead(dict(type='PML.ContrastiveLoss')).loss(
        embeddings, samples(labels), ref_emb=others.double(), ref_labels=other_labels)
    expected = contrastive(embeddings, labels, others, other_labels.tolist())
    assert out['loss'].item() == pytest.approx(expected, rel=1e-5)


def test_miners_look_in_the_reference_set(batch, reference):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.TripletMarginLoss'), miner=dict(type='BatchHardMiner'))
    out = head.loss(embeddings, samples(labels), *reference)
    assert out['mined_triplets'] == 6
    mined = head.miners['triplet_margin'](embeddings, torch.tensor(labels), *reference)
    assert int(mined[1].max()) < 5
    expected = losses.TripletMarginLoss()(embeddings, torch.tensor(labels), mined, *reference)
    assert out['loss'] == expected


def test_only_the_losses_that_take_a_reference_set_get_it(batch, reference):
    embeddings, labels = batch
    head = MetricHead([dict(type='PML.ContrastiveLoss'),
                       dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=4)])
    plain = head.loss(embeddings, samples(labels))
    out = head.loss(embeddings, samples(labels), *reference)
    assert out['loss_arc_face'] == plain['loss_arc_face']
    assert out['loss_contrastive'] != plain['loss_contrastive']


def test_a_mask_says_what_a_memory_takes_in(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.CrossBatchMemory', embedding_size=4, memory_size=8,
                           loss=dict(type='ContrastiveLoss')))
    mask = torch.tensor([False, True] * 3)
    out = head.loss(embeddings, samples(labels), enqueue_mask=mask)
    memory = head.losses['cross_batch_memory']
    assert torch.equal(memory.embedding_memory[:3], embeddings[1::2])
    assert memory.queue_idx == 3
    expected = contrastive(embeddings[::2], [0, 1, 2], embeddings[1::2], [0, 1, 2])
    assert out['loss'].item() == pytest.approx(expected, rel=1e-5)

    # of two views the second is the memory's
    mask = torch.tensor([False] * 3 + [True] * 3)
    head.loss([embeddings[:3], embeddings[3:]], samples([0, 1, 2]), enqueue_mask=mask)
    assert torch.equal(memory.embedding_memory[3:6], embeddings[3:])


def test_losses_of_ones_own_say_by_their_signature_what_they_take(batch):
    embeddings, labels = batch

    class Drift(nn.Module):
        def forward(self, embeddings, labels, enqueue_mask):
            return embeddings[enqueue_mask].sum()

    mask = torch.tensor([True, False] * 3)
    out = MetricHead(Drift()).loss(embeddings, samples(labels), enqueue_mask=mask)
    torch.testing.assert_close(out['loss'], embeddings[::2].sum())


def test_what_the_losses_of_the_library_take():
    reference = {'ref_emb', 'ref_labels'}
    assert taken_extra(losses.ContrastiveLoss()) == taken_extra(losses.NTXentLoss()) == reference
    assert taken_extra(losses.ProxyNCALoss(3, 4)) == taken_extra(losses.SmoothAPLoss()) == set()
    assert taken_extra(losses.CrossBatchMemory(losses.NTXentLoss(), 4)) == {'enqueue_mask'}


@pytest.mark.parametrize('extra, says', [
    (dict(ref_emb=torch.rand(5, 4)), 'together'),
    (dict(ref_emb=torch.rand(5, 3), ref_labels=torch.zeros(5).long()), r'\(5, 3\).*\(R, 4\)'),
    (dict(ref_emb=torch.rand(5, 4), ref_labels=torch.zeros(4).long()), r'\(5,\) int64'),
    (dict(ref_emb=torch.rand(5, 4), ref_labels=torch.zeros(5)), r'float32'),
    (dict(enqueue_mask=torch.ones(6).bool()), 'enqueue_mask.*none of the losses.*ContrastiveLoss'),
    (dict(enqueue_mask=torch.ones(5).bool()), r'\(6,\) bool.*\(5,\)'),
    (dict(enqueue_mask=torch.ones(6)), r'float32'),
])
def test_bad_extra(batch, extra, says):
    with pytest.raises(ValueError, match=says):
        MetricHead(dict(type='PML.ContrastiveLoss')).loss(batch[0], samples(batch[1]), **extra)
