import copy

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import nn

from retrieval.heads import CrossBatchMemory, EmbeddingQueue, MetricHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

D = 4


def batches(count, size=4, classes=3, seed=0, width=D):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, width, generator=generator),
             torch.randint(classes, (size,), generator=generator)) for _ in range(count)]


def contrastive(embeddings, labels, memory, own=None):
    """The contrastive loss with margins 0 and 1 of each row and each remembered (vector, label),
    but its own copy, by a plain loop: means over those above zero."""
    positive, negative = [], []
    for a, (row, label) in enumerate(zip(embeddings, labels, strict=True)):
        for place, (other, other_label) in enumerate(memory):
            distance = (row / row.norm() - other / other.norm()).norm().item()
            if label != other_label:
                negative.append(max(0.0, 1 - distance))
            elif own is None or own[a] != place:
                positive.append(distance)
    return sum(sum(values) / max(1, sum(value > 0 for value in values))
               for values in (positive, negative))


@pytest.mark.parametrize('size', [3, 4, 5])
@pytest.mark.parametrize('enqueue', ['before', 'after'])
def test_it_is_a_plain_queue(size, enqueue):
    """Batches of 4 in a memory of 10, which they do not fill evenly, 3 and 5 neither."""
    memory = MODELS.build(dict(
        type='retrieval.CrossBatchMemory', loss=dict(type='PML.ContrastiveLoss'),
        embedding_size=D, memory_size=10, enqueue=enqueue))
    queue = []
    for embeddings, labels in batches(8, size):
        before = queue
        entries = list(zip(embeddings, labels.tolist(), strict=True))
        queue = (queue + entries)[-10:]
        if enqueue == 'before':
            own = range(len(queue) - size, len(queue))
            expected = contrastive(embeddings, labels.tolist(), queue, own)
        elif before:
            expected = contrastive(embeddings, labels.tolist(), before)
        else:
            expected = contrastive(embeddings, labels.tolist(), queue, range(size))
        assert memory(embeddings, labels).item() == pytest.approx(expected, rel=1e-4)
        kept = memory.queue.rows()[0][torch.argsort(
            (torch.arange(len(queue)) - int(memory.queue.position)) % 10)
            if len(queue) == 10 else slice(None)]
        assert torch.equal(kept, torch.stack([vector for vector, _ in queue]))


def test_the_gradient_is_that_of_the_loss_over_the_reference_set():
    memory = CrossBatchMemory(dict(type='ContrastiveLoss'), D, 10)
    (first, first_labels), (second, second_labels) = batches(2)
    memory(first, first_labels)
    second.requires_grad_()
    memory(second, second_labels).backward()
    other = second.detach().clone().requires_grad_()
    reference = torch.cat([first, other.detach()])
    classes = torch.cat([first_labels, second_labels])
    same = second_labels[:, None] == classes
    pairs = (*torch.where(same & ~torch.eye(4, 8).roll(4, 1).bool()), *torch.where(~same))
    losses.ContrastiveLoss()(other, second_labels, pairs, reference, classes).backward()
    torch.testing.assert_close(second.grad, other.grad)


@pytest.mark.parametrize('name', sorted(losses.CrossBatchMemory.supported_losses()))
@pytest.mark.parametrize('mined', [False, True])
def test_it_agrees_with_the_library_where_that_is_right(name, mined):
    """On every loss that the library's own memory allows, until something is to be resumed."""
    miner = miners.MultiSimilarityMiner() if mined else None
    theirs = losses.CrossBatchMemory(getattr(losses, name)(), D, 9, copy.deepcopy(miner))
    ours = CrossBatchMemory(getattr(losses, name)(), D, 9, miner)
    for embeddings, labels in batches(5):
        torch.manual_seed(0)
        expected = theirs(embeddings, labels)
        torch.manual_seed(0)
        torch.testing.assert_close(ours(embeddings, labels), expected)
    assert torch.equal(ours.queue.embeddings, theirs.embedding_memory)


def test_a_mask_keeps_some_rows_and_trains_on_the_others():
    theirs = losses.CrossBatchMemory(losses.ContrastiveLoss(), D, 5)
    ours = CrossBatchMemory(losses.ContrastiveLoss(), D, 5)
    mask = torch.tensor([False, True, True, False])
    for embeddings, labels in batches(4):
        embeddings.requires_grad_()
        value = ours(embeddings, labels, enqueue_mask=mask)
        torch.testing.assert_close(value, theirs(embeddings, labels, enqueue_mask=mask))
        value.backward()
        assert not embeddings.grad[mask].any() and embeddings.grad[~mask].any()
    assert ours.queue.labels.tolist() == theirs.label_memory.tolist()


def test_a_batch_of_one_row_is_kept_from_its_copy():
    """The library's own takes the copy for another sample here."""
    memory = CrossBatchMemory(losses.ContrastiveLoss(), D, 4)
    (embeddings, labels), = batches(1, size=1)
    assert memory(embeddings, labels) == 0
    assert memory(embeddings, labels) == pytest.approx(0, abs=2e-3)  # with the copy of before


def test_warm_up_compares_the_batch_with_itself_and_keeps_nothing():
    memory = CrossBatchMemory(losses.ContrastiveLoss(), D, 16, warmup_iters=2)
    for number, (embeddings, labels) in enumerate(batches(4)):
        value = memory(embeddings, labels)
        alone = losses.ContrastiveLoss()(embeddings, labels)
        assert int(memory.queue.filled) == (0, 0, 4, 8)[number]
        assert torch.isclose(value, alone) == (number < 3)
        memory.eval()
        memory(embeddings, labels)  # neither counts nor keeps
        memory.train()
    assert int(memory.iterations) == 4


def test_a_resumed_memory_goes_on_with_the_very_state():
    batch = batches(7)
    whole = CrossBatchMemory(losses.ContrastiveLoss(), D, 10, warmup_iters=1)
    values = [whole(*one) for one in batch]
    for stop in range(7):
        first = CrossBatchMemory(losses.ContrastiveLoss(), D, 10, warmup_iters=1)
        for one in batch[:stop]:
            first(*one)
        second = CrossBatchMemory(losses.ContrastiveLoss(), D, 10, warmup_iters=1)
        second.load_state_dict({name: value.clone()
                                for name, value in first.state_dict().items()})
        assert [second(*one) for one in batch[stop:]] == values[stop:]
        for name, value in whole.state_dict().items():
            assert torch.equal(second.state_dict()[name], value), name


def test_labels_that_float32_cannot_tell_apart():
    memory = CrossBatchMemory(losses.ContrastiveLoss(), D, 8)
    small = CrossBatchMemory(losses.ContrastiveLoss(), D, 8)
    for embeddings, labels in batches(3):
        assert memory(embeddings, labels + 2**53) == small(embeddings, labels)


def test_the_graph_outlives_the_next_batch():
    memory = CrossBatchMemory(losses.ContrastiveLoss(), D, 6)
    total = 0
    for embeddings, labels in batches(4):
        total = total + memory(embeddings.requires_grad_(), labels)
    total.backward()
    assert embeddings.grad.isfinite().all()


def test_in_a_head_beside_the_loss_of_the_batch():
    head = MetricHead([
        dict(type='PML.ContrastiveLoss', name='batch'),
        dict(type='retrieval.CrossBatchMemory', loss=dict(type='ContrastiveLoss'),
             embedding_size=D, memory_size=8, miner=dict(type='MultiSimilarityMiner'))])
    assert head.embedding_size == D and not len(head.miners)
    embeddings, labels = batches(1)[0]
    samples = [RetrievalDataSample().set_gt_label(label) for label in labels]
    out = head.loss(embeddings, samples)
    assert set(out) == {'loss_batch', 'loss_cross_batch_memory'}
    names = set(head.state_dict())
    assert {f'losses.cross_batch_memory.queue.{part}'
            for part in ('embeddings', 'labels', 'position', 'filled')} <= names
    mask = torch.tensor([True, False, False, False])
    head.loss(embeddings, samples, enqueue_mask=mask)
    assert int(head.losses['cross_batch_memory'].queue.filled) == 5
    with pytest.raises(ValueError, match='memory_size=8'):
        head.loss(embeddings.repeat(3, 1), samples * 3)


@pytest.mark.parametrize('loss', [
    losses.ArcFaceLoss(3, D), losses.ProxyAnchorLoss(3, D), losses.VICRegLoss(),
    losses.SmoothAPLoss(), losses.InstanceLoss(), nn.CrossEntropyLoss(),
    losses.CrossBatchMemory(losses.ContrastiveLoss(), D)])
def test_losses_that_compare_no_pairs_are_refused(loss):
    with pytest.raises(ValueError, match='compares no embeddings.*PML.ContrastiveLoss'):
        CrossBatchMemory(loss, D)


class Plain(nn.Module):
    """A loss of one's own, which takes no indices."""

    embedding_size = D

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        ref_emb = embeddings if ref_emb is None else ref_emb
        return (embeddings @ ref_emb.T).mean()


def test_a_loss_without_indices_compares_with_past_batches():
    memory = CrossBatchMemory(Plain(), D, 8, enqueue='after')
    first, second = batches(2)
    memory(*first)
    torch.testing.assert_close(memory(*second), (second[0] @ first[0].T).mean())
    with pytest.raises(ValueError, match="no indices.*enqueue='after'"):
        CrossBatchMemory(Plain(), D, 8)
    with pytest.raises(ValueError, match='embedding_size=5.*built for 4'):
        CrossBatchMemory(Plain(), 5, 8, enqueue='after')


@pytest.mark.parametrize('options, error, says', [
    (dict(memory_size=0), ValueError, 'size must be an integer of at least 1, got 0'),
    (dict(embedding_size=2.5), TypeError, 'embedding_size.*2.5'),
    (dict(warmup_iters=-1), ValueError, 'warmup_iters.*-1'),
    (dict(enqueue='first'), ValueError, "'before' or 'after'.*'first'"),
    (dict(loss='ContrastiveLoss'), TypeError, 'loss must be.*str'),
    (dict(loss=dict(type='ContrastivLoss')), ValueError, "'ContrastiveLoss'"),
    (dict(miner=3), TypeError, 'miner must be.*int'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        CrossBatchMemory(**{'loss': losses.ContrastiveLoss(), 'embedding_size': D, **options})


def test_bad_batches():
    memory = CrossBatchMemory(losses.ContrastiveLoss(), D, 3)
    embeddings, labels = batches(1)[0]
    with pytest.raises(ValueError, match='write the miner into it'):
        memory(embeddings, labels, (labels, labels, labels))
    with pytest.raises(ValueError, match=r'\(4,\) bool.*int64'):
        memory(embeddings, labels, enqueue_mask=labels)
    with pytest.raises(ValueError, match='True for every row'):
        memory(embeddings, labels, enqueue_mask=torch.ones(4).bool())
    with pytest.raises(ValueError, match='4 embeddings.*queue of 3'):
        memory(embeddings, labels)
    with pytest.raises(ValueError, match='width 4.*gives 3'):
        EmbeddingQueue(8, 4).put(embeddings[:, :3], labels)


def test_float64_embeddings_are_kept_as_they_are():
    memory = CrossBatchMemory(dict(type='PML.ContrastiveLoss'), embedding_size=3, memory_size=8)
    rows = torch.randn(4, 3, dtype=torch.float64)
    memory(rows, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(memory.queue.rows()[0], rows)


def test_the_queue_can_be_emptied():
    memory = CrossBatchMemory(dict(type='PML.ContrastiveLoss'), embedding_size=3, memory_size=8)
    torch.manual_seed(0)
    batch = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    fresh = memory(*batch)
    memory(torch.randn(5, 3), torch.arange(5))
    memory.reset_queue()
    assert int(memory.queue.filled) == int(memory.queue.position) == 0
    assert memory(*batch) == fresh
