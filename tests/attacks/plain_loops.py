"""Drawn cases of ranking, evaluation, re-ranking and sampling, against plain loops."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import islice, product
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded

from retrieval.datasets import InfiniteSampler, MPerClassSampler, samplers
from retrieval.datasets.samplers import HierarchicalSampler, WholeClassBatches
from retrieval.evaluation import evaluate
from retrieval.ranking import PreparedGallery, RowSets, topk, within
from retrieval.rerank import (
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    Diffusion,
    KReciprocal,
    SuperGlobalReranking,
    rerank,
)

from ..evaluation.test_evaluate import walk
from ..index.contract import ORACLES
from ..rerank import test_diffusion, test_query_expansion, test_super_global
from ..rerank.dense import check_ranking, clustered, published_distance
from ..rerank.test_k_reciprocal import outside, squared
from .attack import Tally, attack

CHUNK = 200
SEEDS = st.integers(0, 2 ** 32 - 1)
SIMILARITIES = st.sampled_from(['inner_product', 'euclidean', 'cosine_similarity'])


def run_examples(tally: Tally, check: Callable[[Any], None], cases: Any) -> None:
    """Check drawn cases until there are enough; a failing one is made small, and told."""
    while tally.goes_on():
        def counted(case: Any) -> None:
            tally.done += 1
            check(case)
        limits = settings(max_examples=min(CHUNK, tally.least - tally.done), deadline=None,
                          database=None, suppress_health_check=list(HealthCheck),
                          report_multiple_bugs=False, print_blob=False)
        try:
            seeded(f'{tally.seed} {tally.done}')(limits(given(cases)(counted)))()
        except BaseException as error:
            notes = ' '.join(getattr(error, '__notes__', []))
            tally.count(f'{type(error).__name__}: {error} {notes}'[:1500], 0)
            if not isinstance(error, Exception):
                raise


def vectors(seed: int, count: int, similarity: str, width: int) -> np.ndarray:
    """``(count, width)`` float32 whose similarities are exact in float32, with many ties."""
    numbers = np.random.default_rng(seed)
    if similarity == 'cosine_similarity':  # of 4 or 16 signs the length is exact
        return numbers.choice([-1, 1], (count, 4 if width < 5 else 16)).astype(np.float32)
    return numbers.integers(-2, 3, (count, width)).astype(np.float32)


def scores_of(similarity: str, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``(Q, N)`` float64 by a product, as float32 has it."""
    return ORACLES[similarity](queries.astype(np.float64),
                               rows.astype(np.float64)).astype(np.float32).astype(np.float64)


# The engine ----------------------------------------------------------------------------------

ENGINE = st.fixed_dictionaries(dict(
    seed=SEEDS, similarity=SIMILARITIES, queries=st.integers(0, 40),
    rows=st.one_of(st.integers(1, 40), st.integers(250, 530)), width=st.integers(1, 20),
    k=st.one_of(st.none(), st.integers(1, 600)), budget=st.sampled_from([1, 64, 1000, 2 ** 22]),
    exclude=st.sampled_from(['none', 'one', 'lists', 'columns', 'sets']), mask=st.booleans(),
    half=st.booleans(), tensor=st.booleans(), threshold=st.floats(-9, 9, width=32)))


def left_out(case: dict[str, Any], num_queries: int, num_rows: int) -> tuple[Any, np.ndarray]:
    """An exclusion in the form that is asked for, and as a matrix ``(Q, N)``."""
    numbers = np.random.default_rng((case['seed'], 1))
    gone = np.zeros((num_queries, num_rows), bool)
    form = case['exclude']
    if form == 'none':
        return None, gone
    if form in ('one', 'columns'):
        rows = numbers.integers(-1, num_rows, num_queries if form == 'one' else (num_queries, 3))
        for query, own in enumerate(rows.reshape(num_queries, 3 if form == 'columns' else 1)):
            gone[query, own[own >= 0]] = True
        return (torch.from_numpy(rows) if case['tensor'] else rows), gone
    gone = numbers.random((num_queries, num_rows)) < numbers.choice([0.05, 0.5, 1])
    if form == 'sets':
        return RowSets.from_matrix(gone), gone
    return [np.flatnonzero(row).tolist() for row in gone], gone


def engine_case(case: dict[str, Any]) -> tuple[np.ndarray, Any, Any, Any, np.ndarray]:
    """Queries, gallery, exclusion, mask, and the scores with -inf for what may not be found."""
    similarity = case['similarity']
    queries = vectors(case['seed'], case['queries'], similarity, case['width'])
    rows = vectors(case['seed'] + 1, case['rows'], similarity, case['width'])
    exclude, gone = left_out(case, len(queries), len(rows))
    chosen = np.random.default_rng((case['seed'], 2)).random(len(rows)) < 0.6
    mask = chosen if case['mask'] else None
    scores = scores_of(similarity, queries, rows)
    scores[gone] = -np.inf
    if mask is not None:
        scores[:, ~mask] = -np.inf
    gallery: Any = torch.from_numpy(rows) if case['tensor'] else rows
    if case['half'] and similarity != 'euclidean':
        gallery = PreparedGallery(torch.from_numpy(rows), similarity, precision='half')
    return queries, gallery, exclude, mask, scores


def check_topk(case: dict[str, Any]) -> None:
    """The k best are those of a stable sort."""
    queries, gallery, exclude, mask, scores = engine_case(case)
    found = topk(queries, gallery, case['k'], case['similarity'], exclude, mask, case['budget'])
    possible = np.isfinite(scores).sum(axis=1)
    k = len(scores[0]) if len(scores) and case['k'] is None else case['k'] or 0
    for query, row in enumerate(scores):
        order = np.argsort(-row, kind='stable')[:min(k, possible[query])]
        values, indices = found.row(query)
        assert indices.tolist() == order.tolist(), (query, indices.tolist(), order.tolist())
        np.testing.assert_allclose(values, row[order], rtol=1e-6, atol=1e-6)
    assert len(found) == len(queries)


def check_within(case: dict[str, Any]) -> None:
    """A range search finds what a comparison finds."""
    queries, gallery, exclude, mask, scores = engine_case(case)
    threshold = np.float32(case['threshold'])
    highest = {'cosine_similarity': 1, 'euclidean': 0}.get(case['similarity'], 9)
    threshold = min(threshold, np.float32(highest))
    if case['similarity'] == 'euclidean' and scores.size:  # one that some reach exactly
        threshold = np.float32(np.partition(scores.ravel(), scores.size // 2)[scores.size // 2])
        threshold = threshold if np.isfinite(threshold) else np.float32(-1)
    found = within(queries, gallery, float(threshold), case['similarity'], exclude, mask,
                   case['budget'])
    assert len(found) == len(queries)
    for query, row in enumerate(scores):
        order = [one for one in np.argsort(-row, kind='stable') if row[one] >= threshold
                 and np.isfinite(row[one])]
        assert found.row(query)[1].tolist() == order
        np.testing.assert_allclose(found.row(query)[0], row[order], rtol=1e-6, atol=1e-6)


@attack('drawn cases: top-k at odd shapes', 6000, 0.05, 'examples')
def engine(tally: Tally) -> None:
    """The ranking engine."""
    run_examples(tally, check_topk, ENGINE)


@attack('drawn cases: range search', 2500, 0.03, 'examples')
def ranges(tally: Tally) -> None:
    """All rows above a threshold."""
    run_examples(tally, check_within, ENGINE)


# Evaluation ----------------------------------------------------------------------------------

KS = (1, 3, 40)
NAMES = [*(f'{name}@{k}' for k in KS for name in (
    'Recall', 'Precision', 'CMC', 'mAP', 'mP', 'NDCG', 'Recall-share', 'OML-Precision',
    'CMC-single-shot')), 'R-Precision', 'MAP@R', 'mAP', 'mAP-trapezoid', 'MRR', 'mINP', 'AUROC',
    'FNMR@FMR=0.1', 'FNMR@FMR=0', 'PCF@90']
FORMS = st.sampled_from(['none', 'matrix', 'lists', 'callable', 'sets'])
EVALUATE = st.fixed_dictionaries(dict(
    seed=SEEDS, similarity=SIMILARITIES, queries=st.integers(1, 9), rows=st.integers(1, 14),
    alone=st.booleans(), width=st.integers(1, 6), classes=st.integers(1, 5),
    metrics=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    average=st.sampled_from(['micro', 'macro']), labels=st.sampled_from(['numbers', 'words']),
    relevance=st.sampled_from(['none', 'none', 'matrix', 'lists', 'callable', 'sets']),
    junk=FORMS, ids=st.booleans(), cameras=st.booleans(), sequences=st.booleans(),
    budget=st.sampled_from([1, 64, 2 ** 22]), half=st.booleans(),
    empty=st.sampled_from(['skip', 'zero', 'error'])))


def in_form(form: str, matrix: np.ndarray) -> Any:
    """A relation of queries and rows in one of its forms."""
    return {'none': None, 'matrix': matrix, 'sets': RowSets.from_matrix(matrix),
            'lists': [np.flatnonzero(row).tolist() for row in matrix],
            'callable': lambda rows: torch.from_numpy(matrix)[rows]}[form]


def of_list(name: str, hits: list[bool], identities: list[int], own: int) -> float:
    """A metric of one ranked list, by its definition."""
    kind, _, number = name.partition('@')
    total, at = sum(hits), [place for place, hit in enumerate(hits, 1) if hit]
    k = int(number) if number.isdigit() else 0
    if name in ('R-Precision', 'MAP@R', 'mAP', 'MRR', 'mINP', 'mAP-trapezoid'):
        return float(walk(hits)[name])
    if name == 'AUROC':
        pairs = [good < bad for good, bad in product(at, range(1, len(hits) + 1))
                 if not hits[bad - 1]]
        return sum(pairs) / len(pairs) if pairs else 1.0
    first = hits[:k]
    if kind in ('Recall', 'CMC'):
        return float(any(first))
    if kind == 'mP':
        return sum(first) / min(k, at[-1])
    if kind == 'NDCG':
        return sum(1 / math.log2(1 + place) for place in at if place <= k) / sum(
            1 / math.log2(1 + place) for place in range(1, min(k, total) + 1))
    if kind == 'mAP':
        return sum(n / place for n, place in enumerate(at, 1) if place <= k) / min(k, total)
    if kind == 'CMC-single-shot':
        pictures = [[place for place, one in enumerate(identities) if one == label]
                    for label in sorted(set(identities))]
        mine = [place for place, hit in enumerate(hits) if hit]
        draws = list(product(*pictures))
        found = [any(place in mine for place in sorted(drawn)[:k]) for drawn in draws]
        return sum(found) / len(found)
    return sum(first) / {'Precision': k, 'Recall-share': total,
                         'OML-Precision': min(k, total)}[kind]


def check_evaluate(case: dict[str, Any]) -> None:
    """Every metric and option against sorted lists."""
    numbers = np.random.default_rng(case['seed'])
    alone, similarity = case['alone'], case['similarity']
    count, width = case['queries'] + alone, case['width']
    queries = vectors(case['seed'], count, similarity, width)
    rows = queries if alone else vectors(case['seed'] + 1, case['rows'], similarity, width)
    shape = (count, len(rows))

    def column(most: int) -> tuple[np.ndarray, np.ndarray]:
        own = numbers.integers(0, most, count)
        return own, own if alone else numbers.integers(0, most, len(rows))
    labels, theirs = column(case['classes'])
    by_label = labels[:, None] == theirs
    relevant = by_label if case['relevance'] == 'none' else numbers.random(shape) < 0.3
    gone = np.eye(count, dtype=bool) if alone else np.zeros(shape, bool)
    options: dict[str, Any] = {}
    if case['ids']:
        own, others = column(6)
        gone = gone | (own[:, None] == others)
        options['ids'] = [f'p{one}' for one in own]
        if not alone:
            options['gallery_ids'] = [f'p{one}' for one in others]
    junk = numbers.random(shape) < 0.2
    if case['junk'] != 'none':
        gone = gone | junk
        options['junk'] = in_form(case['junk'], junk)
    for name in ('cameras', 'sequences'):
        if case[name]:
            own, others = column(2)
            gone = gone | (by_label & (own[:, None] == others))
            options[name] = own
            if not alone:
                options[f'gallery_{name}'] = others
    if case['relevance'] != 'none':
        options['relevance'] = in_form(case['relevance'], relevant)
    if case['half'] and similarity != 'euclidean':
        options['precision'] = 'half'
    scores = scores_of(similarity, queries, rows)
    lists = [[row for row in np.argsort(-scores[query], kind='stable') if not gone[query, row]]
             for query in range(count)]
    metrics = [name for name in case['metrics'] if not name.startswith('CMC-single') or (
        case['relevance'] == 'none' and all(np.prod([ranked.count(one) or 1 for one in range(9)])
                                            <= 300 for ranked in ([theirs[row] for row in one]
                                                                  for one in lists)))] or ['mAP']
    named = (lambda values: [f'class {one}' for one in values]) if case['labels'] == 'words' \
        else (lambda values: values)

    def ask() -> dict[str, float]:
        return evaluate(queries, named(labels), None if alone else rows,
                        None if alone else named(theirs), metrics, similarity, case['average'],
                        tile_budget=case['budget'], empty_queries=case['empty'], **options)
    hits = [[bool(relevant[query, row]) for row in ranked] for query, ranked in enumerate(lists)]
    kept = [query for query in range(count) if any(hits[query])]
    others = any(not all(one) for one in hits)  # pairs that do not match
    if (case['empty'] == 'error' and len(kept) < count) or (case['empty'] == 'skip' and not kept) \
            or (not (others and kept) and any('FNMR' in name for name in metrics)):
        try:
            ask()
        except ValueError:
            return
        raise AssertionError('it was not refused')
    found = ask()
    for name in metrics:
        if name.startswith('FNMR'):
            rate = float(name.partition('=')[2])
            good = [scores[query, row] for query, ranked in enumerate(lists) for row in ranked
                    if relevant[query, row]]
            bad = [scores[query, row] for query, ranked in enumerate(lists) for row in ranked
                   if not relevant[query, row]]
            allowed = [t for t in [*good, *bad, math.inf]
                       if sum(b >= t for b in bad) <= rate * len(bad)]
            wanted = sum(g < min(allowed) for g in good) / len(good)
        elif name.startswith('PCF'):
            every = queries if alone else np.concatenate([queries, rows])
            parts = np.linalg.svd(every - every.mean(axis=0, dtype=np.float64),
                                  compute_uv=False) ** 2
            held = np.cumsum(parts) / max(parts.sum(), 1e-300)
            if parts.sum() < 1e-9:
                wanted = 0.0
            elif np.abs(held - 0.9).min() < 1e-9:
                continue  # rounding decides
            else:
                wanted = (1 + int((held < 0.9).sum())) / every.shape[1]
        else:
            values = {query: of_list(name, hits[query], [int(theirs[row]) for row in lists[query]],
                                     int(labels[query])) for query in kept}
            if case['empty'] == 'zero':
                values = {query: values.get(query, 0.0) for query in range(count)}
            if case['average'] == 'macro':
                by = {one: [value for query, value in values.items() if labels[query] == one]
                      for one in {labels[query] for query in values}}
                wanted = float(np.mean([np.mean(one) for one in by.values()]))
            else:
                wanted = float(np.mean(list(values.values())))
        if wanted is not None:
            assert abs(found[name] - 100 * wanted) < 1e-6, (name, found[name], 100 * wanted)
    assert found['num_queries'] == count
    assert found['num_skipped_queries'] == (0 if case['empty'] == 'zero' else count - len(kept))
    assert found.get('num_empty_queries', 0) == (count - len(kept)) * (case['empty'] == 'zero')


@attack('drawn cases: evaluate, every metric and option', 7000, 0.08, 'examples')
def evaluation(tally: Tally) -> None:
    """The evaluation."""
    run_examples(tally, check_evaluate, EVALUATE)


# Rerankers -----------------------------------------------------------------------------------

RERANK = st.fixed_dictionaries(dict(
    seed=st.integers(0, 2 ** 20), kind=st.sampled_from(
        ['average', 'alpha', 'k-reciprocal', 'k-reciprocal joint', 'k-reciprocal outside',
         'super-global', 'diffusion', 'augmentation']),
    queries=st.integers(1, 8), rows=st.integers(2, 40), width=st.integers(2, 16),
    own=st.booleans(), k=st.integers(1, 50), n=st.integers(1, 12), m=st.integers(1, 6),
    weight=st.sampled_from([0.0, 0.3, 0.9]), alpha=st.sampled_from([0, 1, 2.5])))


def check_rerank(case: dict[str, Any]) -> None:
    """A reranker against its plain loop, up to near ties."""
    gallery = clustered(case['rows'], case['width'], 4, case['seed'])[0]
    k, n, m = min(case['k'], len(gallery)), case['n'], case['m']
    own = case['own'] and case['queries'] <= len(gallery)
    queries = gallery[:case['queries']] if own else clustered(
        case['queries'], case['width'], 4, case['seed'] + 1)[0]
    own_rows = list(range(len(queries))) if own else [-1] * len(queries)
    k -= own and k == len(gallery)
    if k < 1:
        return
    kind, cosine = case['kind'], 'cosine_similarity'
    if kind in ('average', 'alpha'):
        alpha = 0 if kind == 'average' else case['alpha']
        step: Any = AverageQueryExpansion(n) if kind == 'average' else AlphaQueryExpansion(n, alpha)
        wanted = test_query_expansion.scores_of(queries, gallery, n, alpha, cosine, own_rows)
        check_ranking(rerank(queries, gallery, step, k, own_rows=own_rows), wanted, k, own_rows,
                      atol=1e-4)
    elif kind == 'k-reciprocal' and n < len(gallery):
        rows = list(range(len(gallery)))
        distance = published_distance(squared(gallery, cosine), n, m, case['weight'])
        found = rerank(gallery, gallery, KReciprocal(n, m, case['weight']), k, own_rows=rows)
        check_ranking(found, 1 - distance, min(k, len(gallery) - 1), rows, atol=1e-4)
    elif kind == 'k-reciprocal joint' and n < len(gallery):
        queries = clustered(case['queries'], case['width'], 4, case['seed'] + 1)[0]
        found = rerank(queries, gallery, KReciprocal(n, m, case['weight'], joint=True), k)
        distance = published_distance(squared(torch.cat([queries, gallery]), cosine), n, m,
                                      case['weight'])
        check_ranking(found, 1 - distance[:len(queries), len(queries):], k, atol=1e-4)
    elif kind == 'k-reciprocal outside' and n < len(gallery):
        queries = clustered(case['queries'], case['width'], 4, case['seed'] + 1)[0].double()
        found = rerank(queries.float(), gallery, KReciprocal(n, m, case['weight']), k)
        distance = [outside(query, gallery, n, m, case['weight']) for query in queries.numpy()]
        check_ranking(found, 1 - np.stack(distance), k, atol=1e-4)
    elif kind == 'super-global':
        top_m = max(n, k)
        found = rerank(queries, gallery, SuperGlobalReranking(top_m, m, 0.15, 'max'), k,
                       own_rows=own_rows)
        wanted = np.full((len(queries), len(gallery)), -np.inf)
        for query in range(len(queries)):
            new, _ = test_super_global.scores_of(queries[query], gallery, top_m, m, 0.15, 'max',
                                                 own_rows[query])
            wanted[query, list(new)] = list(new.values())
        check_ranking(found, wanted, k, own_rows, atol=1e-4)
    elif kind == 'diffusion':
        found = rerank(queries, gallery, Diffusion(n, m, 0.9, 3.0, None, iterations=500),
                       own_rows=own_rows)
        for query in range(len(queries)):
            wanted, _ = test_diffusion.spread(queries[query], gallery, n, m, 0.9, 3.0,
                                              len(gallery), own_rows[query])
            values, rows = found.row(query)
            reached = int((wanted > 1e-6).sum())
            best = np.sort(wanted)[::-1][:reached]
            np.testing.assert_allclose(values[:reached].numpy(), best, atol=1e-4)
            assert sorted(rows.tolist()) == [row for row in range(len(gallery))
                                             if row != own_rows[query]]
    elif kind == 'augmentation':
        found = rerank(queries, gallery, DatabaseAugmentation(n, case['alpha']), k,
                       own_rows=own_rows)
        assert found.lengths.tolist() == [k] * len(queries)
        assert not any(own_rows[query] in found.row(query)[1].tolist()
                       for query in range(len(queries)))


@attack('drawn cases: rerankers', 2000, 0.05, 'examples')
def rerankers(tally: Tally) -> None:
    """Every reranker."""
    run_examples(tally, check_rerank, RERANK)


# Samplers ------------------------------------------------------------------------------------

SAMPLERS = st.fixed_dictionaries(dict(
    seed=SEEDS, kind=st.sampled_from(['m per class', 'whole classes', 'hierarchical', 'endless']),
    world=st.integers(1, 5), m=st.integers(1, 4), per_batch=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), epoch=st.integers(0, 3),
    round_up=st.booleans()))


class Labelled:
    """A dataset that has labels alone."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.metadata = {'shelf': labels % 2}

    def __len__(self) -> int:
        return len(self.labels)


def check_sampler(case: dict[str, Any]) -> None:
    """What the processes draw together has the composition that is promised."""
    labels = np.repeat(np.arange(len(case['sizes'])), case['sizes'])
    labels = labels[np.random.default_rng(case['seed']).permutation(len(labels))]
    world, m, kind = case['world'], case['m'], case['kind']
    dataset, size = Labelled(labels), m * case['per_batch']
    each: list[list[list[int]]] = []

    def build() -> Any:
        if kind == 'endless':
            return InfiniteSampler(dataset, seed=case['seed'])
        if kind == 'whole classes':
            return WholeClassBatches(labels, max(case['sizes']) * 2, round_up=case['round_up'])
        if kind == 'hierarchical':
            return HierarchicalSampler(dataset, m=m, batch_size=2 * size, seed=case['seed'],
                                       super_class=(labels % 2).tolist(),
                                       super_classes_per_batch=2)
        return MPerClassSampler(dataset, m=m, batch_size=size, seed=case['seed'],
                                round_up=case['round_up'])
    for number in range(world):
        with patch.object(samplers, 'rank', lambda number=number: number), \
                patch.object(samplers, 'world_size', lambda: world):
            try:
                sampler = build()
            except ValueError:
                return  # too few classes, which is said
            if kind == 'endless':
                drawn = list(map(int, islice(sampler, 3 * len(labels))))
                each.append([drawn])
                continue
            if kind == 'whole classes':
                each.append([list(map(int, batch)) for batch in
                             sampler.batches(case['seed'], case['epoch'])])
                continue
            sampler.set_epoch(case['epoch'])
            drawn = list(map(int, sampler))
            assert len(drawn) == len(sampler) and list(map(int, sampler)) == drawn
            each.append([drawn[start:start + sampler.batch_size]
                         for start in range(0, len(drawn), sampler.batch_size)])
    assert len({len(batches) for batches in each}) == 1
    if kind == 'endless':
        stream = [row for turn in zip(*(one[0] for one in each), strict=True) for row in turn]
        for start in range(0, len(stream) - len(labels) + 1, len(labels)):
            assert sorted(stream[start:start + len(labels)]) == list(range(len(labels)))
        return
    sizes, seen = Counter(labels.tolist()), Counter()
    for together in zip(*each, strict=True):
        everything = [row for batch in together for row in batch]
        classes = Counter(labels[everything].tolist())
        seen.update(classes)
        if kind == 'whole classes':
            assert classes == {one: sizes[one] for one in classes}
            assert len(set(everything)) == len(everything)
            continue
        assert set(classes.values()) == {m}
        for row, times in Counter(everything).items():
            held = sizes[int(labels[row])]
            assert times == 1 if held >= m else times in (m // held, -(-m // held))
        if kind == 'hierarchical':
            for batch in together:
                assert sorted(Counter((labels[batch] % 2).tolist()).values()) == [size, size]
    if kind != 'whole classes':
        assert set(seen) == set(sizes)
    if kind == 'm per class':
        assert max(seen.values()) - min(seen.values()) <= m


@attack('drawn cases: samplers on 1 to 5 processes', 2500, 0.03, 'examples')
def sampling(tally: Tally) -> None:
    """Every sampler."""
    run_examples(tally, check_sampler, SAMPLERS)
