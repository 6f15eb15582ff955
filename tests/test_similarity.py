import math
import pickle

import numpy as np
import pytest
import torch

from retrieval.similarity import SIMILARITIES, centre_of, normalize, resolve_similarity


def loop(name, a, b):
    """One pair at a time in double precision."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if name == 'inner_product':
        return dot
    if name == 'euclidean':
        return -math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.mark.parametrize('name', sorted(SIMILARITIES))
def test_similarities_against_a_loop(name):
    torch.manual_seed(0)
    queries, gallery = torch.randn(5, 7), torch.randn(9, 7)
    found = resolve_similarity(name).function(queries, gallery)
    wanted = torch.tensor([[loop(name, q.tolist(), g.tolist()) for g in gallery] for q in queries])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_prepared_product_is_the_function():
    torch.manual_seed(1)
    queries, gallery = torch.randn(4, 6), torch.randn(8, 6)
    for similarity in SIMILARITIES.values():
        if similarity.kind == 'product':
            product = similarity.prepare(queries) @ similarity.prepare(gallery).T
            torch.testing.assert_close(product, similarity.function(queries, gallery))


def test_a_zero_vector_is_similar_to_nothing():
    scores = resolve_similarity('cosine_similarity').function(torch.zeros(1, 3), torch.eye(3))
    assert scores.tolist() == [[0, 0, 0]]


def test_euclidean_keeps_digits_far_from_the_origin():
    gallery = torch.tensor([[1000.0, 0.0], [1000.0, 1.0], [1000.0, 3.0]])
    scores = resolve_similarity('euclidean').function(gallery[:1], gallery)
    torch.testing.assert_close(scores, torch.tensor([[0.0, -1.0, -3.0]]), atol=1e-3, rtol=0)


def test_a_wrong_name_lists_the_valid_ones():
    with pytest.raises(ValueError, match='cosine_similarity.*euclidean.*inner_product'):
        resolve_similarity('cosine')
    with pytest.raises(TypeError, match='callable'):
        resolve_similarity(3)


def test_a_callable_is_taken_as_it_is():
    def mine(queries, gallery):
        return -torch.cdist(queries, gallery, p=1)
    assert resolve_similarity(mine).function is mine


@pytest.mark.parametrize('name', sorted(SIMILARITIES))
def test_pairs_are_the_diagonal(name):
    similarity = resolve_similarity(name)
    queries, gallery = torch.randn(6, 5), torch.randn(6, 5)
    pairs = similarity.of_pairs(similarity.prepare(queries), similarity.prepare(gallery))
    torch.testing.assert_close(pairs, similarity.function(queries, gallery).diagonal())


@pytest.mark.parametrize('as_array', [False, True])
@pytest.mark.parametrize('name', ['cosine_similarity', 'euclidean'])
def test_from_squared_distances_and_back(name, as_array):
    similarity = resolve_similarity(name)
    queries, gallery = torch.randn(4, 5).double(), torch.randn(7, 5).double()
    squares = torch.cdist(similarity.prepare(queries), similarity.prepare(gallery)).square()
    given = squares.clone().numpy() if as_array else squares.clone()
    found = similarity.from_squared_distances(given)
    assert found is given
    similarities = torch.as_tensor(found).clone()
    torch.testing.assert_close(similarities, similarity.function(queries, gallery))
    torch.testing.assert_close(torch.as_tensor(similarity.squared_distances(found)), squares)


def test_rounding_below_zero_is_a_distance_of_zero():
    assert resolve_similarity('euclidean').from_squared_distances(torch.tensor([-1e-6])).item() == 0
    assert resolve_similarity('cosine_similarity').squared_distances(np.array([1.001])).item() == 0


def test_a_copy_is_the_same_similarity():
    euclidean = resolve_similarity('euclidean')
    copied = pickle.loads(pickle.dumps(euclidean))
    assert copied == euclidean and copied.kind == 'distance'


def exact(queries, gallery):
    """Negative distances in double precision, from the differences."""
    return -(queries.double()[:, None] - gallery.double()[None]).square().sum(2).sqrt()


@pytest.mark.parametrize('scale', [1e-38, 1e-20, 1.0, 1e20, 1e37])
def test_equal_rows_are_at_distance_zero_at_every_scale(scale):
    torch.manual_seed(2)
    gallery = torch.randn(70, 33) * scale
    queries = torch.cat([gallery[:5], torch.randn(3, 33) * scale])
    for found in (resolve_similarity('euclidean').function(queries, gallery),
                  resolve_similarity('euclidean').of_pairs(queries[:, None], gallery)):
        torch.testing.assert_close(found, exact(queries, gallery).float(), rtol=1e-6, atol=0)
        assert (found[:5].diagonal() == 0).all()


def test_rows_that_are_nearly_equal_keep_their_order():
    base = torch.randn(64) * 100
    gallery = base + torch.linspace(1e-4, 5e-3, 40)[:, None]
    found = resolve_similarity('euclidean').function(base[None], gallery)
    torch.testing.assert_close(found, exact(base[None], gallery).float(), rtol=1e-6, atol=0)


def test_distances_of_whole_numbers_are_exact():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(0, 256, (200, 128), generator=generator).float()
    found = resolve_similarity('euclidean').function(rows, rows)
    whole = (rows.long()[:, None] - rows.long()).square().sum(2)
    assert torch.equal(found, -whole.double().sqrt().float())


def test_a_middle_takes_no_digit_from_whole_numbers():
    rows = torch.randint(0, 2 ** 20, (100, 6)).float() + 7
    middle = centre_of(rows)
    assert torch.equal(middle, middle.round())
    assert ((middle - rows.sort(dim=0).values[50]).abs() <= rows.amax(0) / 256).all()


@pytest.mark.parametrize('scale', [1e-40, 1e-14, 1.0, 1e20, 3e38])
def test_length_one_at_every_scale(scale):
    torch.manual_seed(4)
    rows = torch.rand(6, 9)
    found = normalize(rows * scale)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(found, normalize(rows), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_a_length_is_the_libraries_and_finite_at_zero():
    rows = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 5, dtype=torch.float64)
    ours, = torch.autograd.grad((normalize(rows) * weights).sum(), rows)
    theirs, = torch.autograd.grad(
        (torch.nn.functional.normalize(rows, dim=1) * weights).sum(), rows)
    torch.testing.assert_close(ours, theirs)
    zero = torch.zeros(1, 5, requires_grad=True)
    normalize(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_cosine_stays_in_its_range():
    torch.manual_seed(5)
    rows = torch.randn(300, 17)
    cosine = resolve_similarity('cosine_similarity')
    scores = cosine.function(rows, torch.cat([rows, -rows]))
    pairs = cosine.of_pairs(cosine.prepare(rows), cosine.prepare(rows))
    assert scores.max() == 1 and scores.min() == -1 and pairs.max() == 1
    assert cosine.clipped(np.array([1.1, -1.1, .5])).tolist() == [1, -1, .5]
