"""Searching a Milvus collection: as many answers as it takes for every query to be complete.

A server computes the scores of equal vectors in different places of its loops, so that they may
differ in the last digits. What lies so close together is scored here again, in float64, each row
alike.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...gallery.filters import parse_filter
from ...structures import Neighbors
from ..base import Exclude, Filter, Found, exclusions
from .collection import BY_METRIC, EMBEDDING, ID, MOST_RESULTS, ROW, Layout, field_name
from .connection import Connection
from .rows import MESSAGE_BYTES, RowTable, allowed_rows, read_metadata, read_vectors
from .vectors import packed

_MOST_HITS = 200_000  # in one answer
_EMBEDDED_BYTES = 256 * 2 ** 20  # that the embedded server may spend on one request
_NOTHING: Found = (np.zeros(0, np.int64), np.zeros(0, np.float32))
_WRITERS = 256  # that may have given the same serial number to a row each
_ROUNDING = 2.0 ** -20  # of the largest score, about what float32 products are off by


def tolerance(scores: np.ndarray) -> float:
    """How far two scores may differ that stand for equal vectors."""
    return float(np.abs(scores).max()) * _ROUNDING if len(scores) else 0.0


def close_together(scores: np.ndarray, k: int) -> np.ndarray:
    """The places, bool ``(m,)``, of descending scores whose order is not sure; m is ``k``, or
    more where the k-th is among them.
    """
    close = scores[:-1] - scores[1:] <= tolerance(scores)
    end = min(k, len(scores))
    while 0 < end < len(scores) and close[end - 1]:
        end += 1
    unsure = np.zeros(len(scores), dtype=bool)
    unsure[:-1] |= close
    unsure[1:] |= close
    return unsure[:end]


def scored(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """The similarity of a query ``(D,)`` to vectors ``(n, D)``, ``(n,)`` float32."""
    similarity = BY_METRIC[metric]
    one, many = (similarity.prepare(torch.from_numpy(side).double()) for side in (query, vectors))
    return similarity.of_pairs(many, one).float().numpy()


class UnknownRow(Exception):
    """Milvus found a row that the table does not have: another process wrote it."""


class Searcher:
    """Searches of one collection.

    Args:
        connection: to Milvus.
        own: the collection's own name.
        table: its rows.
        layout: of the collection.
        search_params: parameters of Milvus's index for searching.
        consistency: the level at which the first request reads; what follows reads no older rows.
    """

    def __init__(self, connection: Connection, own: str, table: RowTable, layout: Layout,
                 search_params: dict[str, Any], consistency: str = 'Session') -> None:
        self.connection, self.own, self.table, self.layout = connection, own, table, layout
        self.metric = layout.metric
        self.level = consistency
        self.params = {'metric_type': self.metric, 'params': search_params}

    def nearest(self, queries: np.ndarray, k: int, excluded: Sequence[set[int]],
                expressions: list[str]) -> list[Found]:
        """For every query ``(Q, D)`` the ``k`` best rows that are not excluded.

        More than k are asked for: what is excluded is left out here, and among equal scores the
        lower rows are taken, as far as Milvus's limit on the results of a query allows. Where k is
        beyond it, one range of rows is searched after another.
        """
        def enough(found: Found, beyond: float) -> bool:
            return len(found[1]) >= k and beyond < found[1][k - 1] - tolerance(found[1])

        if not k or not len(queries):
            return [_NOTHING] * len(queries)
        most = max(map(len, excluded), default=0)
        complete = self._gather(queries, k + most + 1, excluded, expressions, enough,
                                thorough=k + most > MOST_RESULTS)
        return self._settled(queries, complete, k)

    def within(self, queries: np.ndarray, threshold: float, excluded: Sequence[set[int]],
               expressions: list[str]) -> list[Found]:
        """For every query ``(Q, D)`` all rows of at least that similarity, not excluded."""
        def enough(found: Found, beyond: float) -> bool:
            return beyond < threshold

        complete = self._gather(queries, 256, excluded, expressions, enough, thorough=True)
        found = [(rows[scores >= threshold], scores[scores >= threshold])
                 for rows, scores in complete]
        return self._settled(queries, found, len(self.table))

    def _settled(self, queries: np.ndarray, found: list[Found], k: int) -> list[Found]:
        """The first ``k`` of each, those that are equal but for rounding in the right order."""
        unsure = [close_together(scores, k) for _, scores in found]
        if not any(map(np.any, unsure)):
            return [(rows[:k], scores[:k]) for rows, scores in found]
        places = [rows[:len(here)][here] for (rows, _), here in zip(found, unsure, strict=True)]
        wanted = np.unique(np.concatenate(places))
        vectors = read_vectors(self.connection, self.own,
                               [self.table.ids.names[row] for row in wanted.tolist()],
                               self.layout)
        settled = []
        for query, (rows, scores), here, these in zip(queries, found, unsure, places, strict=True):
            rows, scores = rows[:len(here)], scores[:len(here)].copy()
            if len(these):
                again = scored(query, vectors[np.searchsorted(wanted, these)], self.metric)
                scores[here] = np.where(np.isnan(again), scores[here], again)  # NaN: removed
            order = np.lexsort((rows, -scores))[:k]
            settled.append((rows[order], scores[order]))
        return settled

    def _gather(self, queries: np.ndarray, limit: int, excluded: Sequence[set[int]],
                expressions: list[str], enough: Callable[[Found, float], bool],
                thorough: bool = False) -> list[Found]:
        """Ask with a growing limit until ``enough(found, the best score that may be missing)``.

        Where Milvus's limit is reached and ``thorough``, it is asked for one range of rows after
        another, each within the limit.
        """
        results = [_NOTHING] * len(queries)
        waiting = list(range(len(queries)))
        while waiting:
            limit = min(limit, MOST_RESULTS, len(self.table))
            answers = self._ask(queries[waiting], limit, expressions)
            still = []
            for query, (found, beyond) in zip(waiting, answers, strict=True):
                results[query] = _without(found, excluded[query])
                if not enough(results[query], beyond) and beyond > -np.inf:
                    still.append(query)
            waiting = [] if limit == len(self.table) else still
            if limit < MOST_RESULTS:
                limit *= 4
            elif thorough:
                expressions, thorough = self._by_ranges(expressions), False
            else:
                break
        return results

    def _by_ranges(self, expressions: list[str]) -> list[str]:
        serials = self.table.serials
        edges = [*serials[::MOST_RESULTS - _WRITERS], serials[-1] + 1]
        ranges = [f'{ROW} >= {first} and {ROW} < {last}'
                  for first, last in zip(edges, edges[1:], strict=False)]
        return [f'({expression}) and {part}' if expression else part
                for expression in expressions for part in ranges]

    def _ask(self, queries: np.ndarray, limit: int,
             expressions: list[str]) -> list[tuple[Found, float]]:
        """For every query what Milvus found, and the best score that it may have kept back."""
        answers = []
        step = self._queries_at_once(limit, queries.shape[1])
        for start in range(0, len(queries), step):
            block = list(packed(queries[start:start + step], self.layout.dtype))
            parts = [self._hits(block, limit, expression) for expression in expressions]
            answers += [self._merged([part[i] for part in parts], limit)
                        for i in range(len(block))]
        return answers

    def _queries_at_once(self, limit: int, width: int) -> int:
        """How many queries of that width go into one request."""
        most = min(MOST_RESULTS, _MOST_HITS // limit, MESSAGE_BYTES // (4 * width))
        if self.connection.embedded:  # it holds all scores, and for L2 all differences, at once
            each = 4 * len(self.table) * (width if self.metric == 'L2' else 1)
            most = min(most, _EMBEDDED_BYTES // each)
        return max(1, most)

    def _hits(self, queries: list[Any], limit: int, expression: str) -> list[Any]:
        found = self.connection.call(
            'search', self.own, data=queries, filter=expression, limit=limit, anns_field=EMBEDDING,
            search_params=self.params, output_fields=[ID], consistency_level=self.level)
        self.level = 'Session'
        return found

    def _merged(self, parts: list[Any], limit: int) -> tuple[Found, float]:
        rows, scores, beyond = [], [], -np.inf
        for hits in parts:
            values = self._scores(hits.distances)
            found = list(map(self.table.ids.row, hits.ids))
            if None in found:
                raise UnknownRow
            rows.append(np.array(found, np.int64))
            scores.append(values)
            if len(values) >= limit:
                beyond = max(beyond, float(values.min()))
        row, score = np.concatenate(rows), np.concatenate(scores)
        order = np.lexsort((row, -score))
        return (row[order], score[order]), beyond

    def _scores(self, distances: Sequence[float]) -> np.ndarray:
        """Milvus's distances as similarities: of L2 it gives the square."""
        values = np.array(distances, dtype=np.float32)
        return BY_METRIC['L2'].from_squared_distances(values) if self.metric == 'L2' else values


def _without(found: Found, excluded: set[int]) -> Found:
    if not excluded:
        return found
    keep = ~np.isin(found[0], list(excluded))
    return found[0][keep], found[1][keep]


def excluded_rows(exclude: Exclude | None, table: RowTable, num_queries: int) -> list[set[int]]:
    """The rows that every query must not find. Raises as :func:`retrieval.index.base.exclusions`.
    """
    if exclude is None:
        return [set()] * num_queries
    return [{row for row in map(table.ids.row, names) if row is not None}
            for names in exclusions(exclude, num_queries)]


def expressions_of(chosen: Filter | None, searcher: Searcher,
                   kinds: Mapping[str, str]) -> tuple[list[str], int]:
    """A filter as Milvus expressions that no row meets twice, and how many rows meet one at most.

    Args:
        chosen: a text over the columns, a mask, or a callable.
        searcher: of the collection.
        kinds: the kind of every metadata column, by its field.

    Raises:
        TypeError, ValueError: a mask, callable or text is wrong.
    """
    table = searcher.table
    if isinstance(chosen, str):
        read = parse_filter(chosen)
        fields = {name: (name, kind) for name, kind in kinds.items()}
        fields['id'] = (ID, 'str')
        if 'label_name' in fields:  # as the gallery's label is compared
            fields['label'] = fields['label_name']
        for name in read.names():  # as it is called where the rows come from
            if name not in fields and field_name(name) in fields:
                fields[name] = fields[field_name(name)]
        expression = read.to_milvus(fields)
        if expression is not None:
            return [expression], len(table)
        rows = read_metadata(searcher.connection, searcher.own,
                             [fields[name][0] for name in read.names()], table.ids.names)
        chosen = read.mask(lambda name: np.array(
            [row[fields[name][0]] for row in rows],
            dtype=object if fields[name][1] == 'str' else None))
    mask = table.ids.allowed(chosen)
    if mask is None:
        return [''], len(table)
    return allowed_rows(mask.tolist(), table), int(mask.sum())


def as_neighbors(found: Sequence[Found], ids: Sequence[str]) -> Neighbors:
    """The results of a search, short rows filled up."""
    width = max((len(rows) for rows, _ in found), default=0)
    scores = np.full((len(found), width), -np.inf, dtype=np.float32)
    indices = np.full((len(found), width), -1, dtype=np.int64)
    for query, (rows, values) in enumerate(found):
        indices[query, :len(rows)], scores[query, :len(rows)] = rows, values
    return Neighbors(torch.from_numpy(scores), torch.from_numpy(indices), ids)
