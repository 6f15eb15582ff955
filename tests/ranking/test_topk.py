from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import PreparedGallery, topk
from retrieval.ranking.topk import select

torch.manual_seed(0)


def integer_vectors(generator, count, width, size=2):
    """Small whole numbers: products are exact, so that ties are ties in every order of summing."""
    return torch.randint(-size, size + 1, (count, width), generator=generator).float()


def plain_ranking(scores, left_out):
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    return [row for row in order if row not in left_out]


@pytest.mark.parametrize('budget', [2 ** 22, 1000, 64, 1])
@pytest.mark.parametrize('seed', range(5))
def test_against_a_plain_loop_with_many_ties(seed, budget):
    generator = torch.Generator().manual_seed(seed)
    numbers = np.random.default_rng(seed)
    num_queries, num_rows = int(numbers.integers(1, 30)), int(numbers.integers(1, 400))
    queries = integer_vectors(generator, num_queries, 3)
    gallery = integer_vectors(generator, num_rows, 3)
    k = int(numbers.integers(1, num_rows + 3))
    left_out = [numbers.choice(num_rows, min(num_rows, int(numbers.integers(0, 4))), replace=False)
                .tolist() for _ in range(num_queries)]
    found = topk(queries, gallery, k, 'inner_product', exclude=left_out, tile_budget=budget)
    scores = (queries.double() @ gallery.double().T).tolist()
    for query in range(num_queries):
        expected = plain_ranking(scores[query], left_out[query])[:k]
        values, rows = found.row(query)
        assert rows.tolist() == expected
        assert values.tolist() == [scores[query][row] for row in expected]


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
@pytest.mark.parametrize('num_queries', [1, 2, 3, 17])
def test_identical_vectors_tie(similarity, num_queries):
    gallery = torch.randn(1, 33).expand(1003, 33)
    queries = torch.randn(num_queries, 33)
    found = topk(queries, gallery, 5, similarity)
    assert (found.indices == torch.arange(5)).all()


@pytest.mark.parametrize(('name', 'function'), [
    ('cosine_similarity', lambda q, g: (q / np.linalg.norm(q, axis=1, keepdims=True))
     @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T),
    ('inner_product', lambda q, g: q @ g.T),
    ('euclidean', lambda q, g: -np.linalg.norm(q[:, None] - g[None], axis=2)),
])
@pytest.mark.parametrize('budget', [2 ** 22, 2000])
def test_similarities_against_float64(name, function, budget):
    queries, gallery = torch.randn(20, 8) + 3, torch.randn(500, 8) + 3
    scores = function(queries.double().numpy(), gallery.double().numpy())
    found = topk(queries, gallery, 7, name, tile_budget=budget)
    expected = np.argsort(-scores, axis=1)[:, :7]
    assert found.indices.tolist() == expected.tolist()
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, expected, 1), rtol=1e-4)


def test_a_callable_sees_the_whole_gallery():
    def negative_manhattan(queries, gallery):
        assert len(gallery) == 50
        return -torch.cdist(queries, gallery, p=1)

    queries, gallery = torch.randn(9, 4), torch.randn(50, 4)
    found = topk(queries, gallery, 3, negative_manhattan, tile_budget=100)
    scores = -(queries[:, None] - gallery).abs().sum(2)
    assert found.indices.tolist() == scores.topk(3).indices.tolist()


@pytest.mark.parametrize(('function', 'error', 'says'), [
    (lambda q, g: (q @ g.T).T, ValueError, r'\(2, 3\), got \(3, 2\)'),
    (lambda q, g: (q @ g.T).long(), TypeError, 'int64'),
    (lambda q, g: 1.0, TypeError, 'float'),
    (lambda q, g: q @ g.T / 0, ValueError, 'NaN or infinity'),
])
def test_a_callable_that_returns_something_else(function, error, says):
    with pytest.raises(error, match=says):
        topk(torch.randn(2, 4), torch.randn(3, 4), 1, function)


def test_rows_become_shorter_by_what_is_excluded():
    vectors = torch.eye(4)
    found = topk(vectors, vectors, 4, exclude=torch.arange(4))
    assert found.indices.shape == (4, 3)
    assert not (found.indices == torch.arange(4)[:, None]).any()
    found = topk(vectors, vectors, 4, exclude=[[0], None, [2], []])
    assert found.lengths.tolist() == [3, 4, 3, 4]
    assert found.indices[0].tolist() == [1, 2, 3, -1] and found.scores[0, 3] == -torch.inf


def test_exclusion_as_a_table_with_repeats():
    vectors = torch.eye(3)
    found = topk(vectors, vectors, None, exclude=torch.tensor([[0, 0], [-1, 1], [-1, -1]]))
    assert [found.row(i)[1].tolist() for i in range(3)] == [[1, 2], [0, 2], [2, 0, 1]]


def test_everything_excluded_or_masked():
    vectors = torch.eye(2)
    assert topk(vectors, vectors, 2, exclude=[[0, 1], [0, 1]]).indices.shape == (2, 0)
    assert topk(vectors, vectors, 2, mask=torch.zeros(2, dtype=torch.bool)).indices.shape == (2, 0)
    assert topk(torch.zeros(0, 2), vectors, 2).indices.shape == (0, 0)


@pytest.mark.parametrize('budget', [2 ** 22, 64])
def test_mask(budget):
    gallery, queries = torch.randn(200, 5), torch.randn(3, 5)
    mask = torch.rand(200) > 0.7
    found = topk(queries, gallery, 10, 'inner_product', mask=mask, tile_budget=budget)
    allowed = mask.nonzero()[:, 0]
    expected = allowed[(queries @ gallery[allowed].T).topk(10).indices]
    assert found.indices.tolist() == expected.tolist()


def test_negative_scores_and_k_above_the_gallery():
    found = topk(torch.ones(1, 2), -torch.rand(3, 2) - 0.1, 10, 'inner_product')
    assert found.indices.shape == (1, 3) and (found.scores < 0).all()
    assert (found.scores.diff() <= 0).all()


def test_a_prepared_gallery_gives_the_same():
    queries, gallery = torch.randn(5, 6), torch.randn(77, 6)
    prepared = PreparedGallery(gallery)
    assert topk(queries, prepared, 4).indices.tolist() == topk(queries, gallery, 4).indices.tolist()


def test_half_vectors_are_scored_in_float32():
    gallery = torch.randn(130, 6).half()
    found = topk(gallery[:4].float(), PreparedGallery(gallery, 'inner_product'), 3)
    expected = (gallery[:4].float() @ gallery.float().T).topk(3)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores, expected.values)


def test_select_keeps_the_lower_column_at_the_cut():
    scores = torch.tensor([[1., 2, 2, 2, 3], [5, 5, 5, 5, 5], [1, 2, 3, 4, 5]])
    values, columns = select(scores, 3)
    assert values.tolist() == [[3, 2, 2], [5, 5, 5], [5, 4, 3]]
    assert columns.tolist() == [[4, 1, 2], [0, 1, 2], [4, 3, 2]]
    closer = 1 + 1e-12 * torch.arange(4, dtype=torch.float64)[None]
    values, columns = select(closer, 2)  # apart in float64 alone
    assert values.dtype == torch.float64 and columns.tolist() == [[3, 2]]


@pytest.mark.parametrize('k', [0, -1])
def test_k_below_one(k):
    with pytest.raises(ValueError, match='at least 1'):
        topk(torch.ones(1, 2), torch.ones(2, 2), k)


@pytest.mark.parametrize('k', ['3', 1.5, [1], True])
def test_k_is_no_number(k):
    with pytest.raises(TypeError, match='integer'):
        topk(torch.ones(1, 2), torch.ones(2, 2), k)


@pytest.mark.parametrize(('options', 'error', 'says'), [
    ({'exclude': [0]}, ValueError, '1 queries, but there are 2'),
    ({'exclude': torch.tensor([0, 3])}, ValueError, 'row 3, but the gallery has rows 0 to 2'),
    ({'exclude': [[0], [7]]}, ValueError, 'Query 1 names row 7'),
    ({'exclude': torch.tensor([0, -2])}, ValueError, '-1 or more'),
    ({'exclude': torch.tensor([0.5, 1])}, TypeError, 'int64'),
    ({'exclude': [['a'], []]}, TypeError, 'integers'),
    ({'mask': torch.ones(2, dtype=torch.bool)}, ValueError, r'\(3,\)'),
    ({'mask': torch.ones(3)}, TypeError, 'boolean'),
    ({'similarity': 'cosine'}, ValueError, 'cosine_similarity'),
])
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        topk(torch.ones(2, 2), torch.ones(3, 2), 1, **options)


def test_bad_vectors():
    with pytest.raises(ValueError, match='empty'):
        topk(torch.ones(1, 2), torch.ones(0, 2), 1)
    with pytest.raises(ValueError, match='3 columns, but 2'):
        topk(torch.ones(1, 3), torch.ones(2, 2), 1)
    with pytest.raises(ValueError, match='queries must be finite'):
        topk(torch.tensor([[0, torch.nan]]), torch.ones(2, 2), 1)
    with pytest.raises(ValueError, match='too long'):
        topk(torch.full((1, 2), 1e30), torch.ones(2, 2), 1, 'inner_product')


def test_distances_far_from_the_origin_keep_their_digits():
    queries, gallery = torch.randn(5, 8) + 1000, torch.randn(200, 8) + 1000
    found = topk(queries, gallery, 5, 'euclidean')
    exact = -torch.cdist(queries.double(), gallery.double())
    assert found.indices.tolist() == exact.topk(5).indices.tolist()
    torch.testing.assert_close(found.scores.double(), exact.topk(5).values, rtol=1e-4, atol=1e-3)
