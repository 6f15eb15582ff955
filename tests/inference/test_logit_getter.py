"""Logits of every classification loss of pytorch-metric-learning, against its own formula."""
import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from torch import nn

from retrieval.inference import LogitGetter
from retrieval.losses.pml import library_classes

CLASSES, WIDTH = 5, 8


def classification_losses():
    """Every loss of the installed release that is built with class weights."""
    found = {}
    for name, cls in library_classes().items():
        if not issubclass(cls, nn.Module) or not name.endswith('Loss') or name.startswith('Base'):
            continue
        try:
            loss = cls(num_classes=CLASSES, embedding_size=WIDTH)
        except Exception:
            continue
        if any(isinstance(getattr(loss, layer, None), torch.Tensor)
               for layer in LogitGetter.possible_layer_names):
            found[name] = loss
    return found


# Their own logits are products with the lengths left in, where the distance is a cosine.
LENGTHS_COUNT = ('LargeMarginSoftmaxLoss', 'SphereFaceLoss')
LOSSES = classification_losses()


def test_the_losses_are_found():
    assert {'ArcFaceLoss', 'CosFaceLoss', 'LargeMarginSoftmaxLoss', 'NormalizedSoftmaxLoss',
            'ProxyAnchorLoss', 'ProxyNCALoss', 'SoftTripleLoss', 'SphereFaceLoss',
            'SubCenterArcFaceLoss'} <= set(LOSSES)


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_logits(name):
    loss, embeddings = LOSSES[name].requires_grad_(False), torch.randn(7, WIDTH)
    logits = LogitGetter(loss)(embeddings)
    weights = loss.proxies if hasattr(loss, 'proxies') else (
        loss.W if hasattr(loss, 'W') else loss.fc).t()
    for row, embedding in zip(logits, embeddings, strict=True):
        for logit, weight in zip(row, weights, strict=True):
            assert float(logit) == pytest.approx(
                float(loss.distance(embedding[None], weight[None])), abs=1e-5)
    if name not in ('SubCenterArcFaceLoss', 'SoftTripleLoss', *LENGTHS_COUNT):
        own = loss.get_logits(embeddings) / getattr(loss, 'scale', 1)
        own = own * getattr(loss, 'temperature', 1)
        assert torch.allclose(logits, own, atol=1e-4)


def test_a_square_of_weights_is_read_by_its_name():
    """Only the name tells the axes apart; the older release always transposed."""
    proxies = losses.ProxyAnchorLoss(num_classes=WIDTH, embedding_size=WIDTH)
    columns = losses.ArcFaceLoss(num_classes=WIDTH, embedding_size=WIDTH)
    embeddings = torch.randn(3, WIDTH)
    distance = CosineSimilarity()
    assert torch.equal(LogitGetter(proxies)(embeddings), distance(embeddings, proxies.proxies))
    assert torch.equal(LogitGetter(columns)(embeddings), distance(embeddings, columns.W.t()))
    assert torch.equal(LogitGetter(columns, transpose=False)(embeddings),
                       distance(embeddings, columns.W))


def test_weights_are_copied_or_shared():
    loss = losses.ArcFaceLoss(num_classes=CLASSES, embedding_size=WIDTH)
    copied, shared = LogitGetter(loss), LogitGetter(loss, copy_weights=False)
    embeddings, before = torch.randn(2, WIDTH), LogitGetter(loss)(torch.ones(2, WIDTH))
    with torch.no_grad():
        loss.W.neg_()
    assert torch.equal(copied(torch.ones(2, WIDTH)), before)
    assert torch.allclose(shared(embeddings), -copied(embeddings), atol=1e-6)
    assert shared.weights is loss.W and copied.weights is not loss.W
    shared(embeddings).sum().backward()
    assert loss.W.grad is not None


def test_layer_and_distance_may_be_named():
    module = nn.Module()
    module.head = nn.Linear(WIDTH, CLASSES)
    getter = LogitGetter(module, 'head', distance=LpDistance())
    embeddings = torch.randn(3, WIDTH)
    assert torch.equal(getter(embeddings), LpDistance()(embeddings, module.head.weight))


@pytest.mark.parametrize('call, says', [
    (lambda: LogitGetter(losses.TripletMarginLoss()), 'no class weights'),
    (lambda: LogitGetter(LOSSES['ArcFaceLoss'], 'proxies'), 'W'),
    (lambda: LogitGetter(nn.Linear(2, 3), 'weight'), 'distance='),
    (lambda: LogitGetter(LOSSES['ArcFaceLoss'])(torch.randn(2, 4)), 'do not fit'),
    (lambda: LogitGetter(LOSSES['ArcFaceLoss'], transpose=False)(torch.randn(2, WIDTH)),
     'do not fit'),
])
def test_wrong_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()
