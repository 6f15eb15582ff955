"""Long lists above a bar that a sample of the gallery tells: what a stable sort finds."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import PreparedGallery, sampled, topk


@pytest.fixture()
def small(monkeypatch):
    """So that it pays for a small gallery."""
    for name, value in dict(_FEWEST=3, _LEAST_K=2, _SHARE=4, _SAMPLE=50).items():
        monkeypatch.setattr(sampled, name, value)


def whole(count, width, seed=0):
    """Vectors of small whole numbers, whose products are exact and tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (count, width), generator=generator).float()


def sorted_plainly(queries, gallery, k, left_out=()):
    """Scores and rows ``(Q, k)`` of a stable sort."""
    scores = (queries.double() @ gallery.double().T).numpy()
    for query, row in left_out:
        scores[query, row] = -np.inf
    rows = np.argsort(-scores, axis=1, kind='stable')[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


@pytest.mark.parametrize('k', [2, 40, 100])
def test_the_k_best(small, monkeypatch, k):
    gallery, queries = whole(901, 16), whole(30, 16, 1)
    seen = []
    monkeypatch.setattr(sampled, 'best_of_tiles', lambda *arguments, begin=sampled.best_of_tiles:
                        seen.append(1) or begin(*arguments))
    monkeypatch.setattr(PreparedGallery, 'tiles', lambda *_, **__: (8, 192))  # five tiles
    exclude = torch.arange(30) * 30
    found = topk(queries, PreparedGallery(gallery, 'inner_product'), k, exclude=exclude)
    scores, rows = sorted_plainly(queries, gallery, k, enumerate(exclude.tolist()))
    assert seen
    topk(queries, PreparedGallery(gallery, 'inner_product'), k, mask=torch.arange(901) > 800)
    assert len(seen) == 4  # blocks of queries: a sample knows nothing of a mask
    assert np.array_equal(found.scores.numpy(), scores)
    assert np.array_equal(found.indices.numpy(), rows)


def test_a_sample_that_is_not_like_the_rest(small):
    gallery, queries = whole(900, 16), whole(12, 16, 1).abs() + 1
    gallery[::18] += 9  # just the rows of the sample: few others reach the bar
    prepared = PreparedGallery(gallery, 'inner_product')
    lost = sampled.best_of_tiles(prepared, queries, 100)
    lost.offer((queries @ gallery.T).numpy(), 0)
    assert (lost.result()[0][:, 0] == np.inf).all()
    found = topk(queries, prepared, 100)
    scores, rows = sorted_plainly(queries, gallery, 100)
    assert np.array_equal(found.scores.numpy(), scores)
    assert np.array_equal(found.indices.numpy(), rows)


def test_rows_that_carry_scales(small):
    codes = whole(800, 8).to(torch.int8)
    scales = 2.0 ** torch.randint(-3, 3, (800,)).float()
    prepared = PreparedGallery(codes, 'inner_product', prepared=True, scales=scales)
    queries = whole(9, 8, 2)
    sample = (queries @ (codes.float() * scales[:, None])[::16].T).sort(dim=1, descending=True)
    assert np.array_equal(sampled.likely_bar(prepared, queries, 50), sample.values[:, 8])
    found = topk(queries, prepared, 50)
    assert np.array_equal(found.indices.numpy(),
                          sorted_plainly(queries, codes.float() * scales[:, None], 50)[1])


def test_where_it_pays():
    large = PreparedGallery(torch.randn(16 * 1024 + 1, 2), 'inner_product')
    assert sampled.pays(large, 385, 256) and sampled.pays(large, 385, 1024)
    assert not sampled.pays(large, 384, 256)  # threads may cut the gallery
    assert not sampled.pays(large, 385, 255) and not sampled.pays(large, 385, 1025)
    assert not sampled.pays(PreparedGallery(torch.randn(16 * 1024, 2)), 385, 256)
    assert not sampled.pays(PreparedGallery(large.vectors, 'euclidean'), 385, 256)


def test_one_query_of_hundreds_is_searched_again():
    generator = torch.Generator().manual_seed(0)
    gallery, queries = (torch.randn(count, 32, generator=generator) for count in (20_000, 400))
    prepared = PreparedGallery(gallery, 'inner_product')
    bars = sampled.likely_bar(prepared, queries, 300)
    reached = ((queries @ gallery.T).numpy() > bars[:, None]).sum(axis=1)
    assert (reached < 300).sum() <= 3 and reached.mean() < 2 * 300
