import math

import pytest
import torch
from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

from retrieval.heads.loss_terms import limits_of
from retrieval.losses import LearnableTemperatureSoftmaxLoss
from retrieval.registry import MODELS

LABELS = torch.tensor([0, 3, 2, 2, 1])


def embeddings(**kwargs):
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1), **kwargs)


def test_it_is_the_formula_and_the_librarys():
    ours, theirs = LearnableTemperatureSoftmaxLoss(4, 6, 0.1), NormalizedSoftmaxLoss(4, 6, 0.1)
    theirs.W.data.copy_(ours.W.data)
    x = embeddings()
    total = 0.0
    for row, label in zip(x, LABELS.tolist(), strict=True):
        logits = [float(row @ w / (row.norm() * w.norm())) / 0.1 for w in ours.W.detach().T]
        total -= logits[label] - math.log(sum(map(math.exp, logits)))
    assert float(ours(x, LABELS).detach()) == pytest.approx(total / 5, rel=1e-5)
    for indices in (None, (torch.tensor([0]), torch.tensor([1]), torch.tensor([0]))):
        torch.testing.assert_close(ours(x, LABELS, indices), theirs(x, LABELS, indices))
    torch.testing.assert_close(ours.get_logits(x), theirs.get_logits(x))


def test_gradients_by_finite_differences():
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.3).double().eval()
    x = embeddings(dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, w, t: torch.func.functional_call(
        loss, {'W': w, 'log_temperature': t}, (y, LABELS)), (x, loss.W, loss.log_temperature))


@pytest.mark.parametrize('right, bound', [(True, 0.02), (False, 0.5)])
def test_the_temperature_is_learned_between_its_bounds(right, bound):
    """Lower where the classes are told apart, higher where they are not; it can come back."""
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.1, 0.02, 0.5)
    optimizer = torch.optim.SGD([loss.log_temperature], lr=0.5)
    x = loss.W.T.detach()[LABELS]
    labels = LABELS if right else (LABELS + 1) % 4

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
    step((labels + 1) % 4 if right else LABELS)
    assert (loss.temperature > before) if right else (loss.temperature < before)


def test_finite_at_the_lowest_temperature():
    loss = LearnableTemperatureSoftmaxLoss(4, 6, 0.01)
    x = torch.cat([loss.W.T.detach()[LABELS], -loss.W.T.detach()[LABELS], torch.zeros(1, 6)])
    x.requires_grad_()
    loss(x, torch.cat([LABELS, LABELS, LABELS[:1]])).backward()
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
def test_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        LearnableTemperatureSoftmaxLoss(**dict(num_classes=4, embedding_size=6) | options)
