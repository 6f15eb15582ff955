"""The table of the library's losses against what they do when they are called."""
import inspect

import pytest
import torch
from pytorch_metric_learning import losses
from torch import nn

from retrieval.losses.interface import LIBRARY, Interface, interface_of, limits_of
from retrieval.losses.pml import build_component

from .test_every_loss import CLASSES, EACH, EXCEPTIONS, OPTIONS, WIDTH

NAMES = sorted(set(LIBRARY) - {'BaseMetricLossFunction', 'GenericPairLoss'})


def build(name):
    torch.manual_seed(0)
    return build_component(dict(type=f'PML.{name}', **OPTIONS.get(name, {})))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(CLASSES * EACH, WIDTH, generator=generator),
            torch.arange(CLASSES).repeat_interleave(EACH))


def works(loss, *args, **kwargs):
    """Whether a call gives a finite number; the library refuses by exceptions of several kinds."""
    try:
        return bool(torch.isfinite(loss(*args, **kwargs)).all())
    except Exception:
        return False


def test_every_loss_of_the_library_has_a_row():
    found = {name for name, value in vars(losses).items() if inspect.isclass(value)}
    assert found - set(EXCEPTIONS) == set(NAMES)
    assert LIBRARY.keys() - set(NAMES) <= set(EXCEPTIONS)


@pytest.mark.parametrize('name', NAMES)
def test_a_row_says_how_a_loss_can_be_called(name, batch):
    embeddings, labels = batch
    row = LIBRARY[name]
    other = embeddings.flip(0) + 0.1
    indices = (torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([8, 12]))
    if row.inputs != 'classes':  # a loss of views may take one set for both
        assert works(build(name), embeddings) or row.inputs == 'views'
        assert works(build(name), embeddings, ref_emb=other) == (row.inputs == 'views')
        return
    assert works(build(name), embeddings, labels)
    assert works(build(name), embeddings, labels, indices) == row.indices
    if name == 'MultipleLosses':  # hands on what its losses take
        return
    reference = dict(ref_emb=other, ref_labels=labels.flip(0))
    assert works(build(name), embeddings, labels, **reference) == row.reference
    mask = torch.arange(len(labels)) % 2 == 0
    assert works(build(name), embeddings, labels, enqueue_mask=mask) == row.mask


@pytest.mark.parametrize('name', [name for name in NAMES if LIBRARY[name].weights])
def test_class_weights_are_where_the_table_says(name):
    loss = build(name)
    attribute, axis = LIBRARY[name].weights
    weights = dict(loss.named_parameters())[attribute]
    assert weights.shape[axis] == WIDTH and weights.shape[1 - axis] % CLASSES == 0
    assert limits_of(loss)[:2] == (CLASSES, WIDTH)


def test_a_loss_of_ones_own_declares_it_or_is_read_off_its_signature():
    class Declared(nn.Module):
        interface = Interface('views', needs_positives=False)

        def forward(self, first, ref_emb):
            return (first - ref_emb).square().mean()

    class Plain(nn.Module):
        needs_positives = True

        def forward(self, embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None):
            return embeddings.sum()

    class Derived(losses.ContrastiveLoss):
        pass

    class WithProxies(losses.BaseMetricLossFunction):
        def __init__(self):
            super().__init__()
            self.proxies = nn.Parameter(torch.zeros(3, 4))

    assert interface_of(Declared()) == Declared.interface
    assert interface_of(Plain()) == Interface(indices=True, reference=True, needs_positives=True)
    assert interface_of(Derived()) == LIBRARY['ContrastiveLoss']
    assert not interface_of(WithProxies()).needs_positives
    with pytest.raises(ValueError, match=r'not a distance'):
        from pytorch_metric_learning.distances import CosineSimilarity
        interface_of(CosineSimilarity())
