"""Two heads on two sides of a neck, against their losses worked out one by one."""
import pytest
import torch
from torch import nn

from retrieval.encoders import BatchNormNeck
from retrieval.heads import BNNeckHead, ClassificationHead, MetricHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

EUCLIDEAN = dict(type='PML.LpDistance', normalize_embeddings=False)
BEFORE = dict(type='MetricHead',
              loss=dict(type='PML.TripletMarginLoss', margin=0.3, distance=EUCLIDEAN,
                        reducer=dict(type='PML.MeanReducer')),
              miner=dict(type='PML.BatchHardMiner', distance=EUCLIDEAN))
AFTER = dict(type='ClassificationHead', num_classes=3, in_features=4, bias=False,
             label_smoothing=0.1)
LABELS = [0, 0, 1, 1, 2, 2]
SAMPLES = [RetrievalDataSample().set_gt_label(label) for label in LABELS]


def build(**parts):
    return MODELS.build(dict(type='BNNeckHead', before=BEFORE, after=AFTER) | parts)


def batch_hard(features, margin=0.3):
    """The triplet loss of each anchor with its farthest positive and nearest negative."""
    total = 0.0
    for anchor, label in zip(features, LABELS, strict=True):
        distances = [(anchor - other).norm() for other in features]
        same = max(d for d, one in zip(distances, LABELS, strict=True) if one == label)
        other = min(d for d, one in zip(distances, LABELS, strict=True) if one != label)
        total = total + max(0.0, float(same - other) + margin)
    return total / len(features)


def smoothed_cross_entropy(logits, share=0.1):
    logs = logits.log_softmax(1)
    classes = logits.shape[1]
    return -sum((1 - share) * row[label] + share / classes * row.sum()
                for row, label in zip(logs, LABELS, strict=True)) / len(LABELS)


def test_each_head_is_given_its_side():
    head = build()
    before, after = torch.randn(6, 4) * 3, torch.randn(6, 4)
    losses = head.loss((before, after), SAMPLES)
    assert float(losses['loss_before'].detach()) == pytest.approx(batch_hard(before), rel=1e-5)
    torch.testing.assert_close(losses['loss_after'],
                               smoothed_cross_entropy(after @ head.after.fc.weight.T))
    assert float(losses['mined_triplets_before']) == 6
    assert head.num_classes == 3


def test_the_neck_in_between_learns_from_the_classifier_alone():
    neck, head = BatchNormNeck(4).train(), build()
    features = (torch.randn(6, 4) * 3).requires_grad_()
    losses = head.loss(neck(features), SAMPLES)
    losses['loss_before'].backward(retain_graph=True)
    assert neck.norm.weight.grad is None and features.grad.abs().sum() > 0
    losses['loss_after'].backward()
    assert neck.norm.weight.grad.abs().sum() > 0


def test_prediction_is_that_of_the_head_after_the_neck():
    head = build()
    samples = [RetrievalDataSample()]
    features = torch.randn(1, 4)
    head.predict(features, samples, with_scores=True)
    torch.testing.assert_close(samples[0].class_score, head.after(features).softmax(1)[0])


@pytest.mark.parametrize('feats, given', [
    (torch.ones(6, 4), 'one tensor'), ((torch.ones(6, 4),) * 3, '3 tensors')])
def test_features_that_are_no_pair(feats, given):
    with pytest.raises(ValueError, match=f'{given}.*BatchNormNeck'):
        build().loss(feats, SAMPLES)


def test_heads_that_are_none():
    with pytest.raises(ValueError, match='before the neck has no type'):
        build(before=dict(loss=None))
    with pytest.raises(TypeError, match='after the neck.*Linear'):
        BNNeckHead(MetricHead(dict(type='PML.TripletMarginLoss')), nn.Linear(2, 2))
    with pytest.raises(TypeError, match='NoneType'):
        BNNeckHead(None, ClassificationHead(2, 2))
