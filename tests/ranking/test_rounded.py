"""Products in bfloat16 on the CPU: what they find is what float32 finds, bit for bit."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from retrieval.evaluation import evaluate
from retrieval.ranking import (
    Depth,
    PreparedGallery,
    RowSets,
    cpu,
    ranks_among_themselves,
    rounded,
    topk,
)
from retrieval.ranking.all_pairs import NearRows, best_others


def clustered(count, width, seed=0):
    """Rows about a few centres, of which some are equal."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(-(-count // 20), width, generator=generator)
    rows = centres.repeat(20, 1)[:count] + 0.3 * torch.randn(count, width, generator=generator)
    rows[5:9] = rows[4]
    return rows


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product'])
@pytest.mark.parametrize(('count', 'width', 'k'), [(3000, 96, 10), (2000, 512, 33), (700, 40, 1)])
def test_scores_and_rows_are_those_of_float32(similarity, count, width, k):
    gallery, queries = clustered(count, width), clustered(130, width, 1)
    exclude, mask = torch.randint(0, count, (130, 2)), torch.rand(count) > 0.1
    full, half = (topk(queries, PreparedGallery(gallery, similarity, precision=precision), k,
                       exclude=exclude, mask=mask) for precision in ('float32', 'half'))
    assert torch.equal(half.scores, full.scores) and torch.equal(half.indices, full.indices)


@pytest.mark.parametrize(('count', 'width', 'k'), [(1700, 64, 7), (900, 300, 40), (70, 16, 5)])
def test_a_set_among_itself(count, width, k):
    rows = clustered(count, width)
    full, half = (best_others(PreparedGallery(rows, precision=precision), k, 2 ** 17)
                  for precision in ('float32', 'half'))
    assert torch.equal(half[0], full[0]) and torch.equal(half[1], full[1])


def test_too_many_rows_that_are_near(monkeypatch):
    monkeypatch.setattr(rounded, '_FEW', 20)
    rows = torch.randn(1, 64) + 1e-5 * torch.randn(1500, 64)  # all in one another's reach
    rows[700:] = clustered(800, 64)
    full, half = (PreparedGallery(rows, precision=precision) for precision in ('float32', 'half'))
    collected = rounded.best_of_tiles(half, half.own_queries()[:3], 2)
    collected.offer(half.scores(half.own_queries()[:3]).numpy(), 0)
    assert (collected.result()[0][:, 0] == cpu.LOST).all()
    for prepared, other in ((topk(rows, full, 2), topk(rows, half, 2)),):
        assert torch.equal(prepared.scores, other.scores)
        assert torch.equal(prepared.indices, other.indices)
    exact, near = best_others(full, 2, 2 ** 17), best_others(half, 2, 2 ** 17)
    assert torch.equal(exact[0], near[0]) and torch.equal(exact[1], near[1])


def test_a_result_that_the_margin_alone_keeps():
    # The rounded score of the best row is below the second's: 1 + 2^-8 rounds to 1, to even.
    gallery = torch.zeros(400, 64)
    gallery[1, :2] = torch.tensor([1 + 2 ** -8, 0.0])
    gallery[0, :2] = torch.tensor([1.0, 2 ** -9])
    query = torch.zeros(70, 64)
    query[:, :2] = torch.tensor([1.0, 1.0])
    found = topk(query, PreparedGallery(gallery, 'inner_product', precision='half'), 1)
    assert (found.indices == 1).all() and (found.scores == 1 + 2 ** -8).all()


def test_it_is_chosen_for_much_work_on_a_machine_that_is_faster_with_it(monkeypatch):
    monkeypatch.setattr(rounded, 'is_faster', lambda: True)
    monkeypatch.setattr(rounded, '_LEAST', 2 ** 16)
    rows = torch.randn(3200, 64)
    auto, never = PreparedGallery(rows), PreparedGallery(rows, precision='float32')
    assert rounded.pays(auto, 64, 6)
    assert not rounded.pays(auto, 63, 6) and not rounded.pays(auto, 64, 7)
    assert not rounded.pays(never, 64, 2)
    assert not rounded.pays(PreparedGallery(rows, 'euclidean'), 64, 2)
    seen = []
    monkeypatch.setattr(NearRows, 'result', lambda self: seen.append(self) or (
        torch.zeros(3200, 1), torch.ones(3200, 1, dtype=torch.int64)))
    sets = RowSets.from_labels(torch.arange(3200) // 2, torch.arange(3200) // 2)
    next(ranks_among_themselves(auto, sets, Depth(rows=1)))
    assert seen
    monkeypatch.setattr(rounded, 'is_faster', lambda: False)
    assert not rounded.pays(auto, 64, 2)


def test_the_machine_is_measured_once(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    times = []
    monkeypatch.setattr(rounded, 'product_ratio', lambda: times.append(1) or 0.4)
    for _ in range(2):
        rounded.is_faster.cache_clear()
        assert rounded.is_faster()
    (kept,) = (tmp_path / 'retrieval' / 'products').iterdir()
    assert len(times) == 1 and json.loads(kept.read_text()) == {'bfloat16': 0.4}
    kept.write_text('{"bfloat16": 0.9}')
    rounded.is_faster.cache_clear()
    assert not rounded.is_faster()
    kept.write_text('[')
    rounded.is_faster.cache_clear()
    assert rounded.is_faster() and len(times) == 2
    monkeypatch.setattr(rounded, '_FORM', 'of a product that is made otherwise')
    rounded.is_faster.cache_clear()
    assert rounded.is_faster() and len(times) == 3
    rounded.is_faster.cache_clear()


def test_metrics_are_the_same():
    rows, labels = clustered(1200, 64).numpy(), np.arange(1200) % 60
    results = [evaluate(rows, labels, metrics=['Recall@1', 'R-Precision', 'MAP@R'],
                        precision=precision) for precision in ('float32', 'half')]
    assert results[0] == results[1]
