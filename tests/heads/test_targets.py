"""Classes and mixed labels of a batch, read off its samples."""
import pytest
import torch

from retrieval.heads.targets import check_classes, class_labels, soft_labels
from retrieval.structures import RetrievalDataSample


def samples(labels, scores=None):
    made = [RetrievalDataSample(metainfo=dict(sample_id=f'photo-{row}')) for row in
            range(len(labels))]
    for sample, label in zip(made, labels, strict=True):
        if label is not None:
            sample.set_gt_label(label)
    for sample, score in zip(made, scores or [], strict=False):
        if score is not None:
            sample.set_gt_score(score)
    return made


def test_classes_in_the_order_of_the_samples():
    found = class_labels(samples([3, 0, 3]), 3)
    assert found.tolist() == [3, 0, 3] and found.dtype == torch.int64


def test_samples_of_another_engine_hold_plain_numbers():
    other = samples([1, 2])
    other[0].set_field(torch.tensor([4.0]), 'gt_label')
    assert class_labels(other, 2).tolist() == [4, 2]


@pytest.mark.parametrize(('given', 'says'), [
    (None, '3 embeddings and no data samples'), (samples([1, 2]), '3 embeddings and 2 data'),
    (samples([0, None, 1]), "'photo-1' has no gt_label"),
    (samples([0, 1, [1, 2]]), "'photo-2' has 2 classes"),
    (samples([0, 1, -1]), "'photo-2' is -1: classes are numbered from 0")])
def test_samples_without_a_class(given, says):
    with pytest.raises(ValueError, match=says):
        class_labels(given, 3)


def test_mixed_labels_where_all_samples_have_them():
    found = soft_labels(samples([0, 1], [[0.25, 0.75, 0], [0, 1, 0]]), 2, 3)
    assert found.tolist() == [[0.25, 0.75, 0], [0, 1, 0]] and found.dtype == torch.float32
    assert soft_labels(samples([0, 1]), 2, 3) is None


@pytest.mark.parametrize(('scores', 'says'), [
    ([[1, 0, 0]], "'photo-1' is none for 3 classes"),
    ([[1, 0, 0], [1, 0]], r"'photo-1' is shape \(2,\) for 3")])
def test_mixed_labels_of_some_samples(scores, says):
    with pytest.raises(ValueError, match=says):
        soft_labels(samples([0, 1], scores), 2, 3)
    with pytest.raises(ValueError, match='5 embeddings and 2'):
        soft_labels(samples([0, 1], scores), 5, 3)


def test_classes_that_are_no_weights():
    given = samples([0, 1, 2])
    check_classes(torch.tensor([0, 1, 2]), 3, given)
    check_classes(torch.tensor([9, 1, 2]), None, given)
    with pytest.raises(ValueError, match="'photo-2' is 3: the head has num_classes=3.*from 0 to 2"):
        check_classes(torch.tensor([0, 1, 3]), 3, given, 'the head')
    with pytest.raises(ValueError, match="'photo-1' is 7: the loss"):  # in the second view
        check_classes(torch.tensor([0, 1, 2, 0, 7, 2]), 3, given)
    with pytest.raises(ValueError, match="'photo-0' is -1"):
        check_classes(torch.tensor([-1, 1, 2]), None, given)
