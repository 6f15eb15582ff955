import pytest
import torch
from pytorch_metric_learning.utils import loss_and_miner_utils as library

from retrieval.losses.pairs import element_weights, pair_masks

LABELS = torch.tensor([3, 0, 3, 3, 2 ** 40, 0])


def test_all_pairs_of_a_batch_but_with_itself():
    positive, negative = pair_masks(torch.zeros(6, 2), LABELS)
    for i in range(6):
        for j in range(6):
            assert bool(positive[i, j]) == (i != j and LABELS[i] == LABELS[j])
            assert bool(negative[i, j]) == (LABELS[i] != LABELS[j])


def test_all_pairs_with_references():
    references = torch.tensor([0, 3, 9, 2 ** 40])
    positive, negative = pair_masks(torch.zeros(6, 2), LABELS, None, torch.zeros(4, 2), references)
    assert positive.tolist() == [[bool(a == b) for b in references] for a in LABELS]
    assert torch.equal(negative, ~positive)


def test_the_pairs_of_a_miner():
    triplets = (torch.tensor([0, 0, 1]), torch.tensor([2, 3, 5]), torch.tensor([1, 1, 4]))
    positive, negative = pair_masks(torch.zeros(6, 2), LABELS, triplets)
    assert positive.nonzero().tolist() == [[0, 2], [0, 3], [1, 5]]
    assert negative.nonzero().tolist() == [[0, 1], [1, 4]]
    pairs = (*triplets[:2], torch.tensor([5]), torch.tensor([0]))
    positive, negative = pair_masks(torch.zeros(6, 2), LABELS, pairs, torch.zeros(9, 2))
    assert positive.nonzero().tolist() == [[0, 2], [0, 3], [1, 5]]
    assert negative.nonzero().tolist() == [[5, 0]] and negative.shape == (6, 9)


@pytest.mark.parametrize('arguments, says', [
    ((torch.zeros(6, 2), LABELS[:5]), r'labels must be \(6,\).*\(5,\)'),
    ((torch.zeros(6, 2), LABELS, None, torch.zeros(3, 2)), 'without ref_labels'),
    ((torch.zeros(6, 2), LABELS, None, torch.zeros(3, 2), LABELS), 'ref_labels must be'),
    ((torch.zeros(6, 2), LABELS, (LABELS,)), '3 tensors.*or 4.*got 1'),
])
def test_what_does_not_fit_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        pair_masks(*arguments)


@pytest.mark.parametrize('indices', [
    None, (torch.tensor([], dtype=torch.int64),) * 3,
    (torch.tensor([0, 0, 1]), torch.tensor([2, 3, 5]), torch.tensor([1, 1, 4])),
    (torch.tensor([0, 0]), torch.tensor([2, 3]), torch.tensor([1]), torch.tensor([4]))])
def test_weights_are_those_of_the_library(indices):
    found = element_weights(torch.zeros(6, 2), indices)
    torch.testing.assert_close(found, library.convert_to_weights(indices, LABELS, torch.float32))
