import math

import pytest
import torch
from pytorch_metric_learning import losses
from torch.utils._python_dispatch import TorchDispatchMode

from retrieval.evaluation.evaluate import evaluate
from retrieval.heads import MetricHead
from retrieval.losses import RoadmapLoss, SmoothAveragePrecisionLoss
from retrieval.losses.average_precision import smoothed_precision
from retrieval.registry import MODELS

SmoothAPLoss = getattr(losses, 'SmoothAPLoss', None)
with_peer = pytest.mark.skipif(SmoothAPLoss is None, reason='the oldest pytorch-metric-learning '
                               'has no SmoothAPLoss to compare with')
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3, 1, 3])  # 2 is alone


def embeddings(count=9, width=4, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, **kwargs)


def sigmoid(x, temperature):
    return 1 / (1 + math.exp(-max(min(x / temperature, 500), -500)))


def cosines(queries, references):
    unit = [v / v.norm() for v in references]
    return [[float((q / q.norm()) @ v) for v in unit] for q in queries]


def plain_ap(row, positives, negatives, positive_step, negative_step):
    """The papers' formula for one query."""
    total = 0.0
    for i in positives:
        among = 1 + sum(positive_step(row[j] - row[i]) for j in positives if j != i)
        total += among / (among + sum(negative_step(row[j] - row[i]) for j in negatives))
    return total / len(positives)


def groups(labels, query, references=None, count_query=False):
    pool = labels if references is None else references
    same = [j for j in range(len(pool)) if pool[j] == labels[query]
            and (count_query or references is not None or j != query)]
    return same, [j for j in range(len(pool)) if pool[j] != labels[query]]


def plain_smooth_ap(queries, labels, temperature, references=None, ref_labels=None,
                    count_query=False):
    rows = cosines(queries, queries if references is None else references)
    losses = []
    for q, row in enumerate(rows):
        same, others = groups(labels, q, ref_labels, count_query)
        if same:
            def step(x):
                return sigmoid(x, temperature)
            losses.append(1 - plain_ap(row, same, others, step, step))
    return sum(losses) / len(losses)


def plain_roadmap(queries, labels, weight, tau, rho, delta, alpha, beta):
    def bound(x):
        if x <= 0:
            return sigmoid(x, tau)
        if x <= delta:
            return sigmoid(x, tau) + 0.5
        return rho * (x - delta) + sigmoid(delta, tau) + 0.5
    rows = cosines(queries, queries)
    losses = []
    for q, row in enumerate(rows):
        same, others = groups(labels, q)
        if same:
            ranking = 1 - plain_ap(row, same, others, lambda x: float(x >= 0), bound)
            calibration = (sum(max(alpha - row[j], 0) for j in same) / len(same)
                           + sum(max(row[j] - beta, 0) for j in others) / len(others))
            losses.append((1 - weight) * ranking + weight * calibration)
    return sum(losses) / len(losses)


@pytest.mark.parametrize('temperature', [0.01, 0.1, 1.0])
@pytest.mark.parametrize('count_query', [False, True])
def test_smooth_ap_is_the_formula(temperature, count_query):
    x = embeddings(dtype=torch.float64)
    loss = SmoothAveragePrecisionLoss(temperature, count_query)(x, LABELS)
    assert float(loss) == pytest.approx(plain_smooth_ap(x, LABELS, temperature,
                                                        count_query=count_query), abs=1e-9)


def test_smooth_ap_of_references():
    x, references = embeddings(dtype=torch.float64), embeddings(7, seed=1, dtype=torch.float64)
    ref_labels = torch.tensor([0, 0, 1, 3, 5, 5, 1])
    loss = SmoothAveragePrecisionLoss(0.1)(x, LABELS, None, references, ref_labels)
    assert float(loss) == pytest.approx(
        plain_smooth_ap(x, LABELS, 0.1, references, ref_labels.tolist()), abs=1e-9)
    with pytest.raises(ValueError, match='count_query'):
        SmoothAveragePrecisionLoss(count_query=True)(x, LABELS, None, references, ref_labels)


@with_peer
def test_with_the_query_and_as_many_sorted_classes_as_samples_it_is_the_librarys():
    x, labels = embeddings(16), torch.arange(4).repeat_interleave(4)
    ours = SmoothAveragePrecisionLoss(0.05, count_query=True)(x, labels)
    torch.testing.assert_close(ours, SmoothAPLoss(0.05)(x, labels), atol=1e-5, rtol=1e-5)


@with_peer
def test_of_other_batches_the_library_takes_other_positives():
    x, labels = embeddings(12, dtype=torch.float64), torch.arange(4).repeat_interleave(3)
    wanted = plain_smooth_ap(x, labels, 0.05, count_query=True)
    ours = SmoothAveragePrecisionLoss(0.05, count_query=True)(x, labels)
    assert float(ours) == pytest.approx(wanted, abs=1e-9)
    assert abs(float(SmoothAPLoss(0.05)(x, labels)) - wanted) > 1e-3


def test_in_the_limit_it_is_the_average_precision():
    x = embeddings(30, seed=3, dtype=torch.float64)
    labels = torch.arange(30) % 6
    loss = SmoothAveragePrecisionLoss(1e-9)(x, labels)
    exact = evaluate(x, labels, metrics='mAP')['mAP'] / 100
    assert float(loss) == pytest.approx(1 - exact, abs=1e-6)


@pytest.mark.parametrize('options', [
    {}, dict(calibration_weight=0.2, temperature=0.1, slope=3.0, saturation=0.3,
             positive_margin=0.5, negative_margin=0.1),
    dict(calibration_weight=0.0, temperature=0.05), dict(calibration_weight=1.0)])
def test_roadmap_is_the_formula(options):
    x = embeddings(dtype=torch.float64)
    whole = dict(calibration_weight=0.5, temperature=0.01, slope=100., saturation=0.05,
                 positive_margin=0.9, negative_margin=0.6) | options
    loss = RoadmapLoss(**options)(x, LABELS)
    assert float(loss) == pytest.approx(plain_roadmap(x, LABELS, *whole.values()), abs=1e-9)


def test_the_bound_of_roadmap_lies_above_smooth_ap_and_joins():
    loss = RoadmapLoss(temperature=0.02, slope=7.0, saturation=0.1)
    x = torch.linspace(-0.5, 0.5, 2001, dtype=torch.float64)
    bound = loss.upper_bound(x)
    assert bool((bound >= torch.sigmoid(x / 0.02) - 1e-12).all())
    assert bool((bound[x > 0] >= 1).all()) and bool((bound.diff() >= 0).all())
    at = loss.upper_bound(torch.tensor([0.1, 0.1 + 1e-9], dtype=torch.float64))
    assert float(at[1] - at[0]) < 1e-7


@pytest.mark.parametrize('loss', [
    SmoothAveragePrecisionLoss(0.1), SmoothAveragePrecisionLoss(0.1, count_query=True),
    RoadmapLoss(0.3, 0.1, slope=2.0, saturation=0.2)])
def test_gradients_by_finite_differences(loss):
    x = embeddings(seed=5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: loss(y, LABELS), (x,), eps=1e-7, atol=1e-5)


def test_roadmap_keeps_a_gradient_where_smooth_ap_has_none():
    x = torch.tensor([[1., 0.], [0., 1.], [1., 0.5]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    for loss, moves in ((SmoothAveragePrecisionLoss(), False),
                        (RoadmapLoss(calibration_weight=0.), True)):
        gradient, = torch.autograd.grad(loss(x, labels), x)
        assert bool(gradient.abs().max() > 1e-3) == moves


@pytest.mark.parametrize('loss', [SmoothAveragePrecisionLoss(), RoadmapLoss()])
class TestBoth:
    def test_without_a_positive_it_is_zero_with_a_gradient(self, loss):
        x = embeddings(5, requires_grad=True)
        value = loss(x, torch.arange(5))
        value.backward()
        assert float(value.detach()) == 0 and x.grad.tolist() == [[0.] * 4] * 5

    def test_finite_in_float32(self, loss):
        base = embeddings(8)
        rows = torch.cat([base, base, -base, torch.zeros(2, 4)]).requires_grad_()
        labels = torch.arange(26) % 3
        value = loss(rows, labels)
        value.backward()
        assert torch.isfinite(value) and bool(torch.isfinite(rows.grad).all())

    def test_one_class_only(self, loss):
        x = embeddings(4, requires_grad=True)
        value = loss(x, torch.zeros(4, dtype=torch.int64))
        value.backward()
        assert torch.isfinite(value) and bool(torch.isfinite(x.grad).all())

    def test_a_memory_names_its_pairs(self, loss):
        """The batch is in the memory: without the pairs of an embedding with itself the loss is
        that of the batch."""
        x = embeddings(dtype=torch.float64)
        memory = torch.cat([embeddings(3, seed=8, dtype=torch.float64), x])
        positive = LABELS[:, None] == LABELS[None]
        negative = ~positive
        positive.fill_diagonal_(False)
        (a, p), (b, n) = positive.nonzero(as_tuple=True), negative.nonzero(as_tuple=True)
        mined = loss(x, LABELS, (a, p + 3, b, n + 3), memory, torch.arange(12))
        torch.testing.assert_close(mined, loss(x, LABELS))

    def test_in_pieces_it_is_the_same(self, loss, monkeypatch):
        x = embeddings(dtype=torch.float64, requires_grad=True)
        whole, = torch.autograd.grad(loss(x, LABELS), x)
        monkeypatch.setattr('retrieval.losses.average_precision._AT_ONCE', 30)
        value = loss(x, LABELS)
        pieces, = torch.autograd.grad(value, x)
        torch.testing.assert_close(pieces, whole)

    def test_from_a_config_it_is_not_the_librarys(self, loss):
        name = type(loss).__name__
        for kind in (f'retrieval.{name}', name):
            head = MODELS.build(dict(type='retrieval.MetricHead', loss=dict(type=kind)))
            assert isinstance(head, MetricHead) and loss.needs_positives
            assert type(next(iter(head.losses.values()))) is type(loss)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.numel() * out.element_size())
        return out


def test_a_batch_of_two_classes_stays_small():
    x, labels = embeddings(160, requires_grad=True), torch.arange(160) % 2
    with Largest() as noted:
        SmoothAveragePrecisionLoss()(x, labels).backward()
    assert 0 < noted.largest <= 4 * 2 ** 20 < 4 * 160 ** 3


@pytest.mark.parametrize('build, says', [
    (lambda: SmoothAveragePrecisionLoss(0), 'temperature must be above 0'),
    (lambda: RoadmapLoss(temperature=-1), 'temperature must be above 0'),
    (lambda: RoadmapLoss(1.5), r'calibration_weight must be in \[0, 1\]'),
    (lambda: RoadmapLoss(slope=-1), 'slope and saturation'),
    (lambda: RoadmapLoss(positive_margin=0.1), 'below negative_margin'),
])
def test_wrong_arguments(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_what_is_neither_is_not_ranked():
    similarity = torch.tensor([[0.9, 0.8, 0.7]])
    positive, none = torch.tensor([[False, False, True]]), torch.zeros(1, 3, dtype=torch.bool)

    def step(x):
        return (x > 0).float()
    assert smoothed_precision(similarity, positive, none, step, step).tolist() == [1.0]
    one = torch.tensor([[True, False, False]])
    assert smoothed_precision(similarity, positive, one, step, step).tolist() == [0.5]
