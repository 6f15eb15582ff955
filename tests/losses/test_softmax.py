"""The softmax losses equal their formulas, worked out a logit at a time."""
import math

import pytest
import torch
from pytorch_metric_learning.losses import ArcFaceLoss, NormalizedSoftmaxLoss, SubCenterArcFaceLoss

from retrieval.losses import (
    AdaptiveSubCenterArcFaceLoss,
    LearnableTemperatureSoftmaxLoss,
    adaptive_margins,
)
from retrieval.losses.interface import limits_of
from retrieval.registry import MODELS

COUNTS = [1, 16, 81, 625, 0]
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def embeddings(**kwargs):
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1), **kwargs)


def plain(loss, rows, labels):
    """The formula by angles, a logit at a time."""
    total = 0.0
    for row, label in zip(rows, labels.tolist(), strict=True):
        logits = []
        for c in range(loss.num_classes):
            centres = loss.W.detach()[:, c * loss.sub_centers:(c + 1) * loss.sub_centers].T
            angle = min(math.acos(float(row @ w / (row.norm() * w.norm()))) for w in centres)
            margin = math.radians(float(loss.margins[c])) if c == label else 0.0
            logits.append(loss.scale * (math.cos(angle + margin) if angle <= math.pi - margin
                                        else math.cos(angle) - margin * math.sin(margin)))
        total += math.log(sum(math.exp(value - logits[label]) for value in logits))
    return total / len(rows)


def test_margins_by_hand():
    found = adaptive_margins(COUNTS, factor=30, offset=3, exponent=0.25)
    torch.testing.assert_close(found, torch.tensor([33., 18., 13., 9., 33.]))
    radians = torch.deg2rad(adaptive_margins([1, 10 ** 4]))  # of the paper: 0.5 n ** -1/4 + 0.05
    torch.testing.assert_close(radians, torch.tensor([0.55, 0.1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize('options', [
    dict(class_counts=COUNTS), dict(margins=[5, 10, 20, 40, 80], sub_centers=2),
    dict(sub_centers=1, scale=16.0), dict(margins=110.0, scale=8.0)])
def test_it_is_the_formula(options):
    loss = AdaptiveSubCenterArcFaceLoss(5, 6, **options).double()
    rows = embeddings(dtype=torch.float64)
    assert float(loss(rows, LABELS).detach()) == pytest.approx(plain(loss, rows, LABELS), rel=1e-6)


def test_both_sides_of_the_turn_are_met():
    loss = AdaptiveSubCenterArcFaceLoss(5, 6, margins=110.0)
    own = loss.get_cosine(embeddings()).gather(1, LABELS[:, None])
    assert 0 < int((own < -math.cos(math.radians(110))).sum()) < 7


@pytest.mark.parametrize('sub_centers, library', [(1, ArcFaceLoss), (3, SubCenterArcFaceLoss)])
def test_with_one_margin_it_is_the_librarys(sub_centers, library):
    options = {} if sub_centers == 1 else dict(sub_centers=3)
    theirs = library(num_classes=5, embedding_size=6, margin=20, scale=30, **options)
    ours = AdaptiveSubCenterArcFaceLoss(5, 6, sub_centers, margins=20, scale=30)
    ours.W.data.copy_(theirs.W.data)
    rows = embeddings()
    for indices in (None, (torch.tensor([0, 0, 1]), torch.tensor([6, 6, 3]),
                           torch.tensor([2, 3, 5]))):
        values, gradients = [], []
        for loss in (ours, theirs):
            x = rows.clone().requires_grad_()
            values.append(loss(x, LABELS, indices))
            gradients.append(torch.autograd.grad(values[-1], [x, loss.W]))
        torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.get_logits(rows), theirs.get_logits(rows))


def test_gradients_by_finite_differences():
    loss = AdaptiveSubCenterArcFaceLoss(5, 6, class_counts=COUNTS, scale=4.0).double()
    x = embeddings(dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, w: torch.func.functional_call(
        loss, {'W': w}, (y, LABELS)), (x, loss.W))


def test_an_embedding_on_its_centre_has_a_gradient():
    theirs, ours = ArcFaceLoss(5, 6), AdaptiveSubCenterArcFaceLoss(5, 6, sub_centers=1)
    ours.W.data.copy_(theirs.W.data)
    for sign in (1, -1):
        x = (sign * ours.W.T.detach()[LABELS]).requires_grad_()
        value = ours(x, LABELS)
        value.backward()
        assert torch.isfinite(value) and bool(torch.isfinite(x.grad).all())
        assert bool(torch.isfinite(ours.W.grad).all())
    x = ours.W.T.detach()[LABELS].requires_grad_()
    theirs(x, LABELS).backward()
    assert bool(x.grad.isnan().any())  # what ours is for; when this fails, so does our docstring


def test_margins_are_state_and_limits_are_seen():
    loss = AdaptiveSubCenterArcFaceLoss(5, 6, class_counts=COUNTS)
    other = AdaptiveSubCenterArcFaceLoss(5, 6)
    assert other.margins.tolist() == pytest.approx([28.6] * 5)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.margins, adaptive_margins(COUNTS))
    assert limits_of(loss)[:2] == (5, 6)
    assert 'margins=8.59' in repr(loss)


def test_from_a_config():
    head = MODELS.build(dict(type='retrieval.MetricHead', loss=dict(
        type='AdaptiveSubCenterArcFaceLoss', num_classes=5, embedding_size=6,
        class_counts=COUNTS)))
    assert head.num_classes == 5 and head.embedding_size == 6


@pytest.mark.parametrize('options, says', [
    (dict(margins=3, class_counts=COUNTS), 'not both'), (dict(margins=[1, 2]), '5 classes'),
    (dict(margins=200), r'degrees in \[0, 180\)'), (dict(class_counts=[1, 2]), '5 classes'),
    (dict(class_counts=[1, -2, 1, 1, 1]), 'non-negative'), (dict(class_counts=[]), 'number of'),
    (dict(sub_centers=0), 'sub_centers must be an integer of at least 1')])
def test_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        AdaptiveSubCenterArcFaceLoss(5, 6, **options)


FIVE_LABELS = torch.tensor([0, 3, 2, 2, 1])


def temperature_embeddings(**kwargs):
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1), **kwargs)


def test_it_is_the_formula_and_the_librarys():
    ours, theirs = LearnableTemperatureSoftmaxLoss(4, 6, 0.1), NormalizedSoftmaxLoss(4, 6, 0.1)
    theirs.W.data.copy_(ours.W.data)
    x = temperature_embeddings()
    total = 0.0
    for row, label in zip(x, FIVE_LABELS.tolist(), strict=True):
        logits = [float(row @ w / (row.norm() * w.norm())) / 0.1 for w in ours.W.detach().T]
        total -= logits[label] - math.log(sum(map(math.exp, logits)))
    assert float(ours(x, FIVE_LABELS).detach()) == pytest.approx(total / 5, rel=1e-5)
    for indices in (None, (torch.tensor([0]), torch.tensor([1]), torch.tensor([0]))):
        torch.testing.assert_close(ours(x, FIVE_LABELS, indices), theirs(x, FIVE_LABELS, indices))
    torch.testing.assert_close(ours.get_logits(x), theirs.get_logits(x))


def test_temperature_gradients_by_finite_differences():
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.3).double().eval()
    x = temperature_embeddings(dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, w, t: torch.func.functional_call(
        loss, {'W': w, 'log_temperature': t}, (y, FIVE_LABELS)), (x, loss.W, loss.log_temperature))


@pytest.mark.parametrize('right, bound', [(True, 0.02), (False, 0.5)])
def test_the_temperature_is_learned_between_its_bounds(right, bound):
    """Lower where the classes are told apart, higher where they are not; it can come back."""
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.1, 0.02, 0.5)
    optimizer = torch.optim.SGD([loss.log_temperature], lr=0.5)
    x = loss.W.T.detach()[FIVE_LABELS]
    labels = FIVE_LABELS if right else (FIVE_LABELS + 1) % 4

    def step(labels):
        optimizer.zero_grad()
        loss(x, labels).backward()
        optimizer.step()
    for _ in range(50):
        step(labels)
        assert torch.isfinite(loss.log_temperature)
    loss(x, labels)
    assert (loss.temperature <= 0.05) if right else (loss.temperature == pytest.approx(bound))
    before = loss.temperature
    step((labels + 1) % 4 if right else FIVE_LABELS)
    assert (loss.temperature > before) if right else (loss.temperature < before)


def test_finite_at_the_lowest_temperature():
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.01)
    centres = loss.W.T.detach()[FIVE_LABELS]
    x = torch.cat([centres, -centres, torch.zeros(1, 6)])
    x.requires_grad_()
    loss(x, torch.cat([FIVE_LABELS, FIVE_LABELS, FIVE_LABELS[:1]])).backward()
    for value in (x, loss.W, loss.log_temperature):
        assert bool(torch.isfinite(value.grad).all())


def test_limits_and_config():
    head = MODELS.build(dict(type='retrieval.MetricHead', loss=dict(
        type='LearnableTemperatureSoftmaxLoss', num_classes=4, embedding_size=6)))
    loss = next(iter(head.losses.values()))
    assert limits_of(loss)[:2] == (4, 6) and 'temperature=0.05' in repr(loss)
    assert 'losses.learnable_temperature_softmax.log_temperature' in dict(head.named_parameters())


@pytest.mark.parametrize('options, says', [
    (dict(num_classes=0), 'num_classes'), (dict(temperature=0), 'between its bounds'),
    (dict(temperature=2.0), 'between its bounds')])
def test_temperature_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        LearnableTemperatureSoftmaxLoss(**dict(num_classes=4, embedding_size=6) | options)


@pytest.mark.parametrize('threshold', [30, 75, 110])
def test_outliers_are_those_of_the_library(threshold):
    torch.manual_seed(0)
    theirs = SubCenterArcFaceLoss(num_classes=7, embedding_size=6, sub_centers=3)
    ours = AdaptiveSubCenterArcFaceLoss(num_classes=7, embedding_size=6, sub_centers=3)
    ours.W.data.copy_(theirs.W.data)
    embeddings, labels = torch.randn(200, 6), torch.randint(0, 6, (200,))  # of class 6 none
    outliers, centres = ours.get_outliers(embeddings, labels, threshold)
    expected, dominant = theirs.get_outliers(embeddings, labels, threshold)
    assert len(expected) and outliers.tolist() == expected.tolist()
    assert torch.equal(centres[:, :6], dominant[:, :6]) and not centres[:, 6].any()


def test_outliers_want_a_class_for_each_embedding():
    loss = AdaptiveSubCenterArcFaceLoss(num_classes=3, embedding_size=4)
    for labels in (torch.tensor([0, 3]), torch.tensor([0]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match='a label from 0 to 2 for each of 2 embeddings'):
            loss.get_outliers(torch.randn(2, 4), labels)
