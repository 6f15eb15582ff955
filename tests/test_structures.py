import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from retrieval.structures import Neighbors, RetrievalDataSample, as_labels, sample_id_of


@pytest.mark.parametrize('value', [3, [3], np.int32(3), np.array([3]), torch.tensor(3), 3.0])
def test_labels_become_int64(value):
    label = RetrievalDataSample().set_gt_label(value).gt_label
    assert label.dtype == torch.int64 and label.tolist() == [3]


def test_labels_beyond_float32_keep_their_value():
    assert as_labels(2**24 + 1).item() == 2**24 + 1
    assert as_labels(np.array([2**53 + 1])).item() == 2**53 + 1


@pytest.mark.parametrize('value', [1.5, [float('nan')], torch.tensor([0.5]), [[1, 2]]])
def test_labels_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match='gt_label'):
        RetrievalDataSample().set_gt_label(value)


@pytest.mark.parametrize('value', ['cat', None, True])
def test_labels_of_another_type_are_refused(value):
    with pytest.raises(TypeError):
        RetrievalDataSample().set_gt_label(value)


def test_scores_are_float32():
    sample = RetrievalDataSample().set_pred_score(np.array([0.5, 0.25])).set_pred_label([4, 1])
    assert sample.pred_score.dtype == torch.float32
    assert sample.pred_label.tolist() == [4, 1]
    with pytest.raises(ValueError, match='one-dimensional'):
        sample.set_gt_score(np.zeros((2, 2)))


def test_a_sample_survives_the_way_between_processes():
    sample = RetrievalDataSample(metainfo=dict(sample_idx=3, img_path='a.jpg')).set_gt_label(5)
    copy = pickle.loads(ForkingPickler.dumps(sample))
    assert copy.gt_label.tolist() == [5] and copy.sample_idx == 3 and copy.img_path == 'a.jpg'
    assert set(copy.metainfo_keys()) == set(sample.metainfo_keys())
    assert set(copy.keys()) == set(sample.keys())


def test_the_identity_of_a_sample():
    def identity(**metainfo):
        return sample_id_of(RetrievalDataSample(metainfo=metainfo))
    assert identity(sample_id='x', img_path='a.jpg', sample_idx=1) == 'x'
    assert identity(img_path='a.jpg', sample_idx=1) == 'a.jpg'
    assert identity(img_path='a.jpg', box=(1, 2, 3, 4)) == 'a.jpg#1,2,3,4'
    assert identity(sample_idx=1) == '1'
    assert sample_id_of({}, 7) == '7'


def test_short_rows_of_neighbors_are_not_filled_with_hits():
    neighbors = Neighbors(torch.tensor([[2., 1.], [3., -torch.inf]]),
                          torch.tensor([[0, 1], [1, -1]]), ['a', 'b'])
    assert neighbors.lengths.tolist() == [2, 1]
    assert neighbors.ids == [['a', 'b'], ['b']]
    assert neighbors.row(1)[1].tolist() == [1]
    scores, indices = neighbors
    assert scores.shape == indices.shape == (2, 2)
    with pytest.raises(ValueError, match='one shape'):
        Neighbors(torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.int64))
