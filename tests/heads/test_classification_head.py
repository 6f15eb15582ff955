import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrieval.heads import ClassificationHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample


def samples(labels, scores=None):
    made = [RetrievalDataSample(metainfo=dict(sample_id=f'photo-{row}')).set_gt_label(label)
            for row, label in enumerate(labels)]
    for sample, score in zip(made, scores or [], strict=False):
        sample.set_gt_score(score)
    return made


def cross_entropy(logits, targets):
    """The mean over rows of ``-sum of t · log softmax``, as a plain loop."""
    total = 0.0
    for row, target in zip(logits.tolist(), targets, strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        total -= sum(t * (value - log_sum) for value, t in zip(row, target, strict=True))
    return total / len(targets)


@pytest.fixture
def feats():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def test_classes_and_mixed_labels_are_cross_entropy(feats):
    head = MODELS.build(dict(type='retrieval.ClassificationHead', num_classes=3, in_features=6,
                             loss_weight=0.5))
    logits = (feats @ head.fc.weight.T + head.fc.bias).detach()
    hard = head.loss(feats, samples([2, 0, 1, 1]))
    assert list(hard) == ['loss'] and hard['loss'].dtype == torch.float32
    one_hot = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert hard['loss'].item() == pytest.approx(0.5 * cross_entropy(logits, one_hot), rel=1e-5)

    mixed = [[0.25, 0, 0.75], [1, 0, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.7]]
    soft = head.loss((None, feats), samples([2, 0, 1, 1], mixed))
    assert soft['loss'].item() == pytest.approx(0.5 * cross_entropy(logits, mixed), rel=1e-5)


def test_smoothing_spreads_the_label(feats):
    head = ClassificationHead(3, 6, label_smoothing=0.3)
    targets = [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]
    out = head.loss(feats, samples([2, 0, 1, 1]))['loss'].item()
    assert out == pytest.approx(cross_entropy(head(feats).detach(), targets), rel=1e-5)


def test_a_cosine_classifier(feats):
    head = ClassificationHead(3, 6, normalize=True, scale=16.0)
    logits = head(feats)
    for row in range(4):
        for column in range(3):
            cosine = functional.cosine_similarity(feats[row], head.fc.weight[column], dim=0)
            assert logits[row, column].item() == pytest.approx(16 * cosine.item(), abs=1e-4)
    assert head.fc.bias is None


def test_a_named_loss(feats):
    class Hinge(nn.Module):
        def forward(self, logits, target):
            return functional.multi_margin_loss(logits, target)

    head = ClassificationHead(3, 6, loss=Hinge())
    expected = functional.multi_margin_loss(head(feats), torch.tensor([2, 0, 1, 1]))
    torch.testing.assert_close(head.loss(feats, samples([2, 0, 1, 1]))['loss'], expected)


def test_a_step_learns_and_the_weights_are_saved(feats):
    head = ClassificationHead(3, 6)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    first = head.loss(feats, samples([2, 0, 1, 1]))['loss']
    first.backward()
    optimizer.step()
    last = head.loss(feats, samples([2, 0, 1, 1]))['loss']
    assert last < first
    again = ClassificationHead(3, 6)
    again.load_state_dict(head.state_dict())
    assert again.loss(feats, samples([2, 0, 1, 1]))['loss'] == last


def test_losses_are_float32_under_autocast(feats):
    head = ClassificationHead(3, 6)
    half = feats.bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head.loss(half, samples([2, 0, 1, 1]))['loss']
    assert out.dtype == torch.float32
    assert out == head.loss(half.float(), samples([2, 0, 1, 1]))['loss']


def test_predict_puts_probabilities_on_the_samples_when_asked(feats):
    head = ClassificationHead(3, 6)
    given = samples([2, 0, 1, 1])
    assert head.predict(feats, given) is None and 'class_score' not in given[0]
    assert head.predict(feats, given, with_scores=True) is None
    logits = head(feats)
    for row, sample in zip(logits, given, strict=True):
        exponents = [math.exp(value) for value in row.tolist()]
        expected = [value / sum(exponents) for value in exponents]
        assert sample.class_score.tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match='data sample'):
        head.predict(feats, None, with_scores=True)
    with pytest.raises(TypeError, match='with_boxes'):
        head.predict(feats, given, with_boxes=True)


@pytest.mark.parametrize('data_samples, says', [
    (samples([0, 1, 3, 2]), "'photo-2' is 3.*num_classes=3"),
    (samples([0, 1, -1, 2]), "'photo-2' is -1"),
    (samples([0, 1, 1]), '4 embeddings and 3'),
    (None, 'no data samples'),
    ([*samples([0, 1, 1]), RetrievalDataSample()], "'3' has no gt_label"),
    (samples([0, 1, 1, 2], [[1, 0, 0]]), "'photo-1' is none"),
    (samples([0, 1, 1, 2], [[1, 0]] * 4), r"'photo-0' is shape \(2,\)"),
])
def test_bad_labels(feats, data_samples, says):
    with pytest.raises(ValueError, match=says):
        ClassificationHead(3, 6).loss(feats, data_samples)


def test_embeddings_of_another_width(feats):
    with pytest.raises(ValueError, match=r'in_features=5.*\(4, 6\)'):
        ClassificationHead(3, 5).loss(feats, samples([0, 1, 1, 2]))


@pytest.mark.parametrize('options, error, says', [
    (dict(num_classes=0), ValueError, 'num_classes'),
    (dict(in_features=2.5), TypeError, 'in_features'),
    (dict(label_smoothing=1.0), ValueError, 'label_smoothing'),
    (dict(label_smoothing=0.1, loss=nn.CrossEntropyLoss()), ValueError, 'built-in'),
    (dict(loss='CrossEntropyLoss'), TypeError, 'str'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        ClassificationHead(**{**dict(num_classes=3, in_features=6), **options})
