"""Squared distances as they are in float64, and the lower row first among equals."""
import pytest
import torch

from retrieval.inference import FaissKNN
from retrieval.inference.flat_index import FlatIndex

from .loops import loop


@pytest.mark.parametrize('k', [1, 5, 128, 129, 500])
def test_it_finds_what_a_loop_finds(k):
    rows, queries = torch.randn(200, 7), torch.randn(9, 7)
    index = FlatIndex(7)
    index.add(rows[:3])
    index.add(rows[3:])
    squares, found = index.search(queries, k)
    expected, wanted = loop(queries, k, rows)
    assert index.ntotal == 200 and found.shape == (9, min(k, 200))
    assert torch.equal(found, wanted) and squares.dtype == torch.float32
    torch.testing.assert_close(squares.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(index.vectors(torch.tensor([7, 0])), rows[[7, 0]])
    assert torch.equal(index.vectors(slice(190, None)), rows[190:])


@pytest.mark.parametrize('k', [3, 150])
def test_a_row_that_is_not_to_be_found(k):
    rows = torch.randint(0, 3, (200, 2)).float()  # many equal ones
    index = FlatIndex(2)
    index.add(rows)
    squares, found = index.search(rows[40:60], k, exclude=torch.arange(40, 60))
    expected, wanted = loop(rows[40:60], k, rows, first=40)
    assert torch.equal(found, wanted)
    torch.testing.assert_close(squares.double(), expected)


def test_doubtful_rows_are_searched_for_again(monkeypatch):
    """Products in float32 of long vectors say little of distances; the answer is right."""
    rows = 3000 + torch.randn(400, 8)
    index = FlatIndex(8)
    index.add(rows)
    asked = []
    again = index._by_distances
    monkeypatch.setattr(index, '_by_distances',
                        lambda *given: asked.append(len(given[0])) or again(*given))
    squares, found = index.search(rows[:50] + 0.5, 3)
    expected, wanted = loop(rows[:50] + 0.5, 3, rows)
    assert asked and torch.equal(found, wanted)
    torch.testing.assert_close(squares.double(), expected, rtol=1e-6, atol=0)


def test_vectors_that_are_too_long():
    index = FlatIndex(2)
    index.add(torch.eye(2))
    with pytest.raises(ValueError, match='row 1 is too long for float32 distances'):
        index.add(torch.tensor([[1., 1.], [1e19, 0.]]))
    index.add(torch.zeros(0, 2))
    assert index.ntotal == 2


def test_a_copy_is_at_distance_zero_however_long_it_is():
    reference = 1000 + torch.randn(100, 64)
    distances, rows = FaissKNN()(reference, 3, reference)
    assert (distances[:, 0] == 0).all() and rows[:, 0].tolist() == list(range(100))
    expected, wanted = loop(reference, 3, reference)
    assert torch.equal(rows, wanted)
    assert torch.allclose(distances.double(), expected, rtol=1e-5)


@pytest.mark.parametrize('k', [1, 3, 40, 150])
def test_whole_numbers_have_whole_distances_and_ties_go_to_the_lower_row(k):
    generator = torch.Generator().manual_seed(0)
    reference = torch.randint(0, 256, (300, 4096), generator=generator).float()
    reference[100:160] = reference[7]  # more copies than are looked at beside the k
    reference[160] = reference[7]
    reference[160, 5] += 1
    query = reference[[7, 130, 160, 200]]
    squares = (query[:, None].double() - reference.double()).square().sum(2)
    ordered = squares.sort(dim=1, stable=True)
    distances, rows = FaissKNN()(query, k, reference)
    assert torch.equal(rows, ordered.indices[:, :k])
    if k <= 128:
        assert torch.equal(distances, ordered.values[:, :k].float())
    else:
        torch.testing.assert_close(distances.double(), ordered.values[:, :k], rtol=3e-7, atol=0)


def test_a_row_that_is_a_little_farther_does_not_come_first():
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, 512, generator=generator) * 10
    reference = row + 1e-3 * torch.randn(200, 512, generator=generator)
    reference[150] = row
    distances, rows = FaissKNN()(row, 5, reference)
    squares = (row.double() - reference.double()).square().sum(1)
    assert rows[0].tolist() == squares.argsort()[:5].tolist() and distances[0, 0] == 0


def test_distances_to_vectors_with_a_large_mean():
    reference, query = 30 + torch.randn(300, 16), 30 + torch.randn(40, 16)
    distances, _ = FaissKNN()(query, 5, reference)
    assert torch.allclose(distances.double(), loop(query, 5, reference)[0], rtol=2e-4)
