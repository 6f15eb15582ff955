"""Half precision with float32 scores: the same rows and scores as a float32 search."""
from __future__ import annotations

import pytest
import torch

from retrieval.ranking import PreparedGallery, topk
from retrieval.ranking.half_precision import best_by_half
from retrieval.ranking.row_sets import as_row_sets


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
@pytest.mark.parametrize(('count', 'width', 'k'), [(3000, 24, 10), (500, 8, 400), (40, 3, 40)])
def test_the_same_as_float32(similarity, count, width, k):
    torch.manual_seed(count)
    queries, gallery = torch.randn(30, width), torch.randn(count, width) * 3 + 0.5
    exclude = torch.randint(0, count, (30, 2))
    mask = torch.rand(count) > 0.1
    half = topk(queries, PreparedGallery(gallery, similarity, precision='half'), k,
                exclude=exclude, mask=mask)
    full = topk(queries.double(), gallery.double(), k, similarity, exclude=exclude, mask=mask)
    torch.testing.assert_close(half.scores, full.scores, rtol=1e-5, atol=1e-5)
    moved = half.indices != full.indices  # only where two scores are equal but for rounding
    near = (half.scores - full.scores).abs() <= 1e-5
    assert bool(near[moved].all()) and float(moved.float().mean()) < 0.01


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_the_way_of_a_device_finds_the_same(similarity):
    """Its steps are PyTorch's alone, so that they run here too."""
    torch.manual_seed(1)
    gallery = PreparedGallery(torch.randn(900, 24) * 3 + 0.5, similarity, precision='half')
    queries = gallery.prepare_queries(torch.randn(40, 24))
    exclude, mask = torch.randint(0, 900, (40, 2)), torch.rand(900) > 0.1
    scores, rows = best_by_half(gallery, queries, 30, as_row_sets(exclude, 40, 900), mask, 2 ** 14)
    every = gallery.scores(queries)
    every[torch.arange(40)[:, None], exclude] = -torch.inf
    wanted = every.masked_fill(~mask, -torch.inf).topk(30)
    torch.testing.assert_close(scores, wanted.values, rtol=1e-5, atol=1e-5)
    assert float((rows != wanted.indices).float().mean()) < 0.01


def test_scores_that_round_to_one_number_are_told_apart():
    base = torch.nn.functional.normalize(torch.randn(64), dim=0)
    steps = torch.linspace(0, 1e-4, 2000)[torch.randperm(2000)]
    gallery = base * (1 + steps[:, None])  # hundreds share a bfloat16 score
    found = topk(base[None], PreparedGallery(gallery, 'inner_product', precision='half'), 50)
    expected = (gallery.double() @ base.double()).topk(50)
    assert (found.scores[0].double() - expected.values).abs().max() < 1e-6
    assert len(set(found.indices[0].tolist()) & set(expected.indices.tolist())) >= 49


def test_identical_vectors_come_by_row():
    gallery = torch.randn(1, 16).expand(700, 16)
    found = topk(torch.randn(3, 16), PreparedGallery(gallery, precision='half'), 6)
    assert (found.indices == torch.arange(6)).all()


def test_the_margin_covers_every_pair():
    queries, gallery = torch.randn(50, 32), torch.randn(400, 32)
    prepared = PreparedGallery(gallery, 'inner_product')
    half = prepared.half_rows
    rounded = queries.to(half.rows.dtype)
    apart = (queries.double() @ gallery.double().T
             - rounded.double() @ half.rows[:400].double().T).abs()
    assert (apart <= half.margins(queries, rounded)[:, None]).all()
    assert apart.max() > 0.1 * half.margins(queries, rounded).max()  # and is not far too wide


def test_what_is_refused():
    with pytest.raises(ValueError, match='Unknown precision'):
        PreparedGallery(torch.ones(2, 2), precision='float16')
    with pytest.raises(ValueError, match='no product of vectors'):
        PreparedGallery(torch.ones(2, 2), lambda q, g: q @ g.T, precision='half')
