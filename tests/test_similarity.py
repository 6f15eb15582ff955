import math
import pickle

import numpy as np
import pytest
import torch

from retrieval.similarity import SIMILARITIES, resolve_similarity


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
