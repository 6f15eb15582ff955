"""How rankings change from one gallery to another, such as that of a new model."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ..checks import whole_number
from ..gallery import Gallery
from ..ranking import topk
from ..similarity import SimilarityFn
from .evaluate import rank_queries
from .task import EmbeddingSet, EvaluationTask

DEFAULT_QUERIES = 1000
METRICS = ('Recall@1', 'Recall@10', 'MAP@R')

Queries = int | Iterable[str] | tuple[Gallery, Gallery] | None


@dataclass(frozen=True)
class GalleryComparison:
    """The changes for the same queries from an old gallery to a new one.

    Args:
        num_queries: how many queries there were.
        k: how many results of each were looked at.
        overlap: the share of the first k results of the one that are among those of the other,
            mean over queries.
        rank_correlation: Spearman's between the places of the results that both lists hold, mean
            over the queries with at least two such; None where there are none.
        num_correlated: how many queries those are.
        changed_first: the share of queries whose first result is another.
        results: for each metric, from labels, percent in the old and the new gallery.
        rows: of the old and of the new gallery.
        only_old, only_new: how many ids stand in one of them alone.
        differences: what of the fingerprints differs, in words.
        most_changed: the queries with the least overlap: id, overlap, first result before and
            after.
    """

    num_queries: int
    k: int
    overlap: float
    rank_correlation: float | None
    num_correlated: int
    changed_first: float
    results: dict[str, tuple[float, float]]
    rows: tuple[int, int]
    only_old: int
    only_new: int
    differences: list[str] = field(default_factory=list)
    most_changed: list[tuple[str, float, str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, for a JSON file."""
        return asdict(self)

    def report(self) -> str:
        """The comparison in words, a line each."""
        correlation = 'unknown' if self.rank_correlation is None else \
            f'{self.rank_correlation:.4f} (over {self.num_correlated} queries)'
        lines = [
            f'old: {self.rows[0]} rows, {self.only_old} of them only there',
            f'new: {self.rows[1]} rows, {self.only_new} of them only there',
            f'made with a difference in: {", ".join(self.differences) or "nothing known"}',
            f'queries: {self.num_queries}',
            f'first {self.k} results in common: {100 * self.overlap:.2f} %',
            f'rank correlation of those in common: {correlation}',
            f'first result is another: {100 * self.changed_first:.2f} % of the queries']
        lines += [f'{name}: {before:.2f} -> {after:.2f} ({after - before:+.2f})'
                  for name, (before, after) in self.results.items()]
        lines += [f'  {name}: overlap {share:.2f}, first {before} -> {after}'
                  for name, share, before, after in self.most_changed]
        return '\n'.join(lines)


@dataclass(frozen=True)
class _Side:
    """A gallery and the queries as its model encodes them."""

    gallery: Gallery
    queries: Gallery
    similarity: str | SimilarityFn

    def first(self, k: int) -> list[list[str]]:
        """The ids of the first k results of each query, which does not find itself."""
        names = self.gallery.ids
        own = torch.from_numpy(names.find(self.queries.ids))
        found = topk(self.queries.embeddings, self.gallery.embeddings, k, self.similarity,
                     exclude=own)
        return [[names[row] for row in rows if row >= 0] for rows in found.indices.tolist()]

    @property
    def labelled(self) -> bool:
        """Queries and gallery have labels."""
        return self.queries.labels is not None and self.gallery.labels is not None

    def results(self, metrics: Sequence[str]) -> dict[str, float]:
        """The means of metrics in percent."""
        queries, rows = (EmbeddingSet(side.embeddings, side.labels, side.ids)
                         for side in (self.queries, self.gallery))
        if self.queries.label_names != self.gallery.label_names:  # classes numbered apart
            queries, rows = map(EmbeddingSet.of_gallery, (self.queries, self.gallery))
        task = EvaluationTask(queries, rows, similarity=self.similarity)
        return rank_queries(task, metrics).summary()


def compare_galleries(old: Gallery, new: Gallery, queries: Queries = None, k: int = 10,
                      similarity: str | SimilarityFn | None = None,
                      metrics: Sequence[str] = METRICS, seed: int = 0) -> GalleryComparison:
    """Search both galleries for the same pictures, each in its own embeddings, and compare.

    Args:
        old, new: galleries with ids; their widths may differ.
        queries: ids that both hold; or how many of them are drawn (all where there are fewer);
            or two galleries of queries, as the old and as the new model encodes them. A picture
            does not find itself. By default 1,000 are drawn.
        k: how many results of each query are compared.
        similarity: of both; by default the one that each gallery is meant for, else cosine.
        metrics: what is evaluated where galleries and queries have labels; there may be none.
        seed: of the drawing.

    Raises:
        ValueError: a gallery has no ids, no query is left, or k is below 1.
        UnknownIdError: a query is not in both.

    Example:
        >>> rows = torch.tensor([[1., 0.], [.9, .1], [0., 1.]])
        >>> old, new = Gallery(rows, ids='abc'), Gallery(rows, ids='bca')
        >>> round(compare_galleries(old, new, k=1).changed_first, 2)
        0.67
    """
    k = whole_number('k', k)
    for gallery in (old, new):
        if not gallery.identified:
            raise ValueError('Galleries are compared by the ids of their rows, and one has none: '
                             'dump both with ids.')
    sides = _sides(old, new, queries, similarity, seed)
    first, second = (side.first(k) for side in sides)
    overlaps, correlations, changed = _changes(first, second)
    results = {}
    if metrics and all(side.labelled for side in sides):
        before, after = (side.results(metrics) for side in sides)
        results = {name: (before[name], after[name]) for name in metrics}
    shared = int((new.ids.find(old.ids) >= 0).sum())
    return GalleryComparison(
        num_queries=len(sides[0].queries), k=k, overlap=float(np.mean(overlaps)),
        rank_correlation=float(np.mean(correlations)) if correlations else None,
        num_correlated=len(correlations), changed_first=float(np.mean(changed)),
        results=results,
        rows=(len(old), len(new)), only_old=len(old) - shared, only_new=len(new) - shared,
        differences=old.fingerprint.differences(new.fingerprint),
        most_changed=_most_changed(list(sides[0].queries.ids), overlaps, first, second))


def _sides(old: Gallery, new: Gallery, queries: Queries, similarity: str | SimilarityFn | None,
           seed: int) -> tuple[_Side, _Side]:
    if isinstance(queries, tuple):
        asked = queries
        if list(asked[0].ids) != list(asked[1].ids):
            raise ValueError('The queries of the old and of the new model must have the same ids '
                             'in the same order.')
    else:
        names = _shared_ids(old, new, queries, seed)
        asked = old.subset(old.find(names)), new.subset(new.find(names))
    first, second = (
        _Side(gallery, own, similarity or gallery.similarity or 'cosine_similarity')
        for gallery, own in zip((old, new), asked, strict=True))
    return first, second


def _shared_ids(old: Gallery, new: Gallery, queries: int | Iterable[str] | None,
                seed: int) -> list[str]:
    if queries is not None and not isinstance(queries, int):
        return [str(name) for name in queries]
    count = DEFAULT_QUERIES if queries is None else queries
    shared = np.flatnonzero(new.ids.find(old.ids) >= 0)
    if count < 1 or not len(shared):
        raise ValueError(f'There is no query: {len(shared)} ids stand in both galleries, and '
                         f'{count} were asked for. Give queries=(old_queries, new_queries), '
                         'encoded by each model.')
    if count < len(shared):
        shared = np.sort(np.random.default_rng(seed).choice(shared, count, replace=False))
    return [old.ids[row] for row in shared.tolist()]


def _changes(before: list[list[str]],
             after: list[list[str]]) -> tuple[list[float], list[float], list[bool]]:
    """For each query the overlap, the correlation where there is one, and a changed first."""
    overlaps, correlations, changed = [], [], []
    for old, new in zip(before, after, strict=True):
        place = {name: rank for rank, name in enumerate(new)}
        common = [place[name] for name in old if name in place]
        overlaps.append(len(common) / max(len(old), len(new), 1))
        changed.append(old[:1] != new[:1])
        if len(common) > 1:
            correlations.append(_spearman(common))
    return overlaps, correlations, changed


def _spearman(places: list[int]) -> float:
    """Spearman's correlation of distinct places with their order, ``1 - 6 Σd² / (n³ - n)``."""
    count = len(places)
    ranks = np.argsort(np.argsort(places))
    return float(1 - 6 * np.square(ranks - np.arange(count)).sum() / (count ** 3 - count))


def _most_changed(ids: list[str], overlaps: list[float], before: list[list[str]],
                  after: list[list[str]], shown: int = 5) -> list[tuple[str, float, str, str]]:
    order = np.argsort(overlaps, kind='stable')[:shown]
    return [(ids[query], overlaps[query], (before[query] or [''])[0], (after[query] or [''])[0])
            for query in order.tolist() if overlaps[query] < 1]
