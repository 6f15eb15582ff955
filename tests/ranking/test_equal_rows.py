"""What every search promises of equal rows: distance 0, the lower row, nothing before it."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex
from retrieval.ranking import (
    Depth,
    PreparedGallery,
    RowSets,
    ranks_among_themselves,
    relevant_ranks,
    topk,
    within,
)


def whole_numbers(width, rows=128, low=-3, high=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (rows, width), generator=generator).float()


def with_a_farther_row_first(width):
    """Rows 64 to 72 equal the queries, and rows 0 to 8 are a little off."""
    gallery = whole_numbers(width)
    queries = gallery[:9].clone()
    gallery[64:73] = queries
    gallery[:9, 0] += 0.05
    return queries, gallery


@pytest.mark.parametrize('precision', ['float32', 'half'])
@pytest.mark.parametrize('width', [3, 512, 4096])
def test_the_equal_row_comes_first_at_distance_zero(width, precision):
    queries, gallery = with_a_farther_row_first(width)
    found = topk(queries, PreparedGallery(gallery, 'euclidean', precision=precision), 2)
    assert (found.scores[:, 0] == 0).all()
    assert (gallery[found.indices[:, 0]] == queries).all()


@pytest.mark.parametrize('width', [64, 2048])
def test_every_search_finds_the_equal_row(width):
    queries, gallery = with_a_farther_row_first(width)
    equal = torch.arange(64, 73)
    assert all(64 + query in rows.tolist() for query, (_, rows) in
               enumerate(within(queries, gallery, -0.0, 'euclidean')))
    ranks, = relevant_ranks(queries, gallery, RowSets.from_rows(equal, 128),
                            similarity='euclidean')
    assert (ranks.ranks == 1).all()
    together = torch.cat([queries, gallery])
    itself = RowSets.from_rows(torch.cat([equal + 9, torch.full((128,), -1)]), 137)
    for depth in (Depth(rows=1), Depth(everything=True)):
        blocks = list(ranks_among_themselves(PreparedGallery(together, 'euclidean'), itself,
                                             depth))
        assert (torch.cat([block.ranks for block in blocks]) == 1).all()
    for index in (ExactIndex('euclidean'), FaissIndex('Flat', 'euclidean')):
        index.add(gallery, range(128))
        found = index.search(queries, 1)
        assert (found.indices[:, 0] == equal).all() and (found.scores == 0).all()
        assert [rows.tolist() for _, rows in index.range_search(queries, 0.)] == \
            equal[:, None].tolist()


@pytest.mark.parametrize('make', [lambda: ExactIndex('euclidean'),
                                  lambda: ExactIndex('euclidean', precision='half'),
                                  lambda: FaissIndex('Flat', 'euclidean')])
def test_descriptors_of_bytes_rank_as_whole_numbers_do(make):
    gallery = whole_numbers(128, 500, 0, 256)
    gallery[250:] = gallery[:250]  # every distance twice
    queries = whole_numbers(128, 12, 0, 256, seed=1)
    index = make()
    index.add(gallery, range(500))
    found = index.search(queries, 30)
    squares = (queries.long()[:, None] - gallery.long()).square().sum(2).numpy()
    order = np.argsort(squares, axis=1, kind='stable')[:, :30]
    assert (found.indices.numpy() == order).all()
    wanted = -np.sqrt(np.take_along_axis(squares, order, 1).astype(float)).astype(np.float32)
    assert (found.scores.numpy() == wanted).all()


@pytest.mark.parametrize('scale', [1e-30, 1e20])
@pytest.mark.parametrize('similarity', ['cosine_similarity', 'euclidean'])
def test_ranks_do_not_depend_on_the_scale(similarity, scale):
    torch.manual_seed(6)
    queries, gallery = torch.randn(7, 24), torch.randn(90, 24)
    plain, scaled = topk(queries, gallery, 20, similarity), \
        topk(queries * scale, gallery * scale, 20, similarity)
    assert (plain.indices == scaled.indices).all() and scaled.scores.isfinite().all()


def test_what_overflows_is_refused():
    with pytest.raises(ValueError, match='row 1 is too long.*divide'):
        topk([[1.]], [[1.], [2e38]], 1, 'euclidean')
    with pytest.raises(ValueError, match='row 0 is too long.*divide'):
        topk([[1e20]], [[1.]], 1, 'inner_product')


def test_zero_rows_and_half_floats():
    gallery = torch.tensor([[0., 0.], [3., 4.], [0., 0.]], dtype=torch.float16)
    found = topk(gallery[:2], gallery, 3, 'euclidean')
    assert found.scores.tolist() == [[0, 0, -5], [0, -5, -5]]
    assert found.indices.tolist() == [[0, 2, 1], [1, 0, 2]]
    index = ExactIndex('euclidean', dtype='float16')
    index.add(gallery, range(3))
    assert index.search(gallery[:2], 3).scores.tolist() == [[0, 0, -5], [0, -5, -5]]
    assert topk(gallery[:1], gallery, 3).scores.tolist() == [[0, 0, 0]]


def test_one_long_row_takes_nothing_from_the_others():
    torch.manual_seed(7)
    gallery = torch.randn(200, 16)
    gallery[5] = 1e30
    found = topk(gallery[:50], gallery, 1, 'euclidean')
    assert (found.indices[:, 0] == torch.arange(50)).all() and (found.scores == 0).all()


@pytest.mark.parametrize('make', [lambda rows: PreparedGallery(rows),
                                  lambda rows: PreparedGallery(rows, precision='half')])
def test_cosine_stays_in_its_range(make):
    torch.manual_seed(8)
    rows = torch.randn(300, 17)
    found = topk(torch.cat([rows, -rows]), make(rows), 300)
    assert found.scores.max() == 1 and found.scores.min() == -1
    index = FaissIndex('Flat')
    index.add(rows, range(300))
    assert index.search(rows, 3).scores.max() == 1


@pytest.mark.parametrize('scale', [1e-25, 1.0, 1e18])
def test_the_margin_of_the_products_covers_every_pair(scale):
    torch.manual_seed(9)
    queries, gallery = torch.randn(40, 100) * 3 * scale, (torch.randn(500, 100) + 4) * scale
    prepared = PreparedGallery(gallery, 'euclidean')
    rough = prepared.rough_rows
    rows, margin = rough.prepare(queries)
    found = rough.gallery.scores(rows).double()
    near, far = ((side.double() - rough.centre) * rough.scale for side in (queries, gallery))
    apart = (found - (near @ far.T - far.square().sum(1) / 2)).abs()
    assert (apart <= margin[:, None]).all() and rough.length <= 1


@pytest.mark.parametrize('case', ['spread', 'offset', 'near', 'ties', 'one far query', 'skewed'])
def test_the_nearest_are_those_of_all_distances(case):
    torch.manual_seed(10)
    queries, gallery = torch.randn(30, 12), torch.randn(1500, 12)
    if case == 'offset':
        queries, gallery = queries + 5000, gallery + 5000
    elif case == 'near':
        gallery = queries[:1] + gallery * 1e-4
    elif case == 'ties':
        queries, gallery = queries.sign(), gallery.sign()
    elif case == 'one far query':
        queries[3] *= 1e30
    elif case == 'skewed':
        gallery[::50] *= 1e6
    exclude, mask = torch.randint(-1, 1500, (30, 2)), torch.rand(1500) > 0.1
    found = topk(queries, gallery, 10, 'euclidean', exclude=exclude, mask=mask)
    squares = (queries.double()[:, None] - gallery.double()).square().sum(2)
    squares[:, ~mask] = torch.inf
    for query, rows in enumerate(exclude.tolist()):
        squares[query, [row for row in rows if row >= 0]] = torch.inf
    scores = (-squares.sqrt()).float()  # what float32 cannot tell apart ranks by row
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :10]
    assert (found.indices == order).float().mean() > 0.99
    torch.testing.assert_close(found.scores, scores.gather(1, order), rtol=2e-7, atol=0)
