"""Near-duplicates within a set and between sets, as groups."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..gallery import Gallery
from ..progress import counted
from ..ranking import PreparedGallery, as_vectors
from ..ranking.range_search import checked_threshold
from ..similarity import Similarity, SimilarityFn

_HELD = 1_000_000  # pairs that wait to be put into the forest


@dataclass
class Duplicates:
    """Groups of rows that are too similar, and the pairs that hold them together.

    A thousand frames of one scene make half a million pairs, and one group. So of all pairs those
    are kept that a group cannot do without: joined from the most similar pair down, a pair is left
    out where its two rows are connected already (the maximum spanning forest). A group of n has
    n - 1 of them; every row's most similar partner is among them, and so is the weakest link of a
    group, at which a higher threshold would cut it in two.
    :func:`retrieval.ranking.range_search.within` finds every pair.

    Args:
        rows: ``(P,)`` int64, rows of the gallery; the most similar pair comes first.
        others: ``(P,)`` int64, rows of the other set, or higher rows of the same.
        scores: ``(P,)`` float32, the similarities.
        groups: for each group its rows of the gallery and, where there are two sets, its rows of
            the other; the largest group first.
        ids: the ids of the gallery's rows.
        other_ids: those of the other set, or None where there is one set.
        links: rows of the gallery that are in no group, since they are the same file as another
            row: a link to it.
    """

    rows: Tensor
    others: Tensor
    scores: Tensor
    groups: list[tuple[list[int], list[int]]]
    ids: Sequence[str]
    other_ids: Sequence[str] | None = None
    links: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self) -> tuple[dict[int, float], dict[int, float]]:
        """The similarity of each row that is in a group to its most similar partner: by row of
        the gallery, and by row of the other set.
        """
        sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
        second = sides[0 if self.other_ids is None else 1]
        for row, other, score in zip(self.rows.tolist(), self.others.tolist(),
                                     self.scores.tolist(), strict=True):  # the best one first
            sides[0].setdefault(row, score)
            second.setdefault(other, score)
        return sides

    def as_dict(self) -> dict[str, Any]:
        """The pairs and groups by id, in plain values for JSON."""
        others = self.ids if self.other_ids is None else self.other_ids
        pairs = [dict(id=str(self.ids[row]), other=str(others[other]), score=round(score, 6))
                 for row, other, score in zip(self.rows.tolist(), self.others.tolist(),
                                              self.scores.tolist(), strict=True)]
        groups: list[Any] = []
        for rows, other_rows in self.groups:
            names = [str(self.ids[row]) for row in rows]
            groups.append(names if self.other_ids is None else dict(
                gallery=names, other=[str(others[row]) for row in other_rows]))
        return dict(groups=groups, pairs=pairs)

    def redundant(self) -> list[int]:
        """Rows of the gallery to leave out, rising: all but the first of each group within a set;
        between sets, every row that has a near-duplicate in the other.
        """
        if self.other_ids is None:
            return sorted(row for rows, _ in self.groups for row in sorted(rows)[1:])
        return torch.unique(self.rows).tolist()


def find_duplicates(gallery: Any, other: Any = None, threshold: float = 0.95,
                    similarity: str | SimilarityFn | Similarity = 'cosine_similarity'
                    ) -> Duplicates:
    """Groups of rows that are connected by pairs whose similarity is at least ``threshold``.

    Within a gallery whose ids are paths, a file counts once: a symbolic or hard link to a picture
    is no duplicate of it. Between two sets it counts, since it is in both.

    Args:
        gallery: a gallery, its file, or vectors ``(N, D)``.
        other: another set, to find what two splits share; None for groups within the gallery.
        threshold: a similarity. What a near-duplicate is depends on the encoder: look at the
            pairs near the threshold.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.

    Raises:
        ValueError: the threshold is NaN, or the sets were made by different models.
        TypeError, FileNotFoundError: a set is of another kind, or missing.

    Example:
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.001], [1.0, 0.002]], np.float32)
        >>> find_duplicates(rows).groups
        [([0, 2, 3], [])]
    """
    own, ids, made = vectors_of(gallery, 'gallery')
    if other is None:
        files = torch.arange(len(ids)) if _is_bare(gallery) else one_row_a_file(ids)
        forest = similar_pairs(own if len(files) == len(own) else own[files], None, threshold,
                               similarity)
        forest = forest._replace(rows=files[forest.rows], others=files[forest.others])
        links = np.setdiff1d(np.arange(len(ids)), files.numpy()).tolist()
        return Duplicates(*forest, _groups(forest, len(own), None), ids, None, links)
    theirs, other_ids, by = vectors_of(other, 'other')
    check_one_model(made, by)
    forest = similar_pairs(own, theirs, threshold, similarity)
    return Duplicates(*forest, _groups(forest, len(own), len(theirs)), ids, other_ids)


def check_one_model(made: Any, by: Any) -> None:
    """Raise ValueError where the fingerprints of two sets, if both have one, differ."""
    differences = made.differences(by) if made and by else []
    if differences:
        raise ValueError('The two sets were made by another model or pipeline: '
                         f'{" and ".join(differences)} differ, so their similarities would '
                         'mean nothing. Encode both with one model.')


def vectors_of(source: Any, name: str) -> tuple[Tensor, Sequence[str], Any]:
    """The vectors ``(N, D)``, ids and fingerprint (or None) of a gallery, its file, or vectors."""
    if _is_bare(source):
        vectors = as_vectors(source, name)
        return vectors, [str(row) for row in range(len(vectors))], None
    gallery = source if isinstance(source, Gallery) else Gallery.load(source)
    return gallery.embeddings, gallery.ids, gallery.fingerprint


def _is_bare(source: Any) -> bool:
    """True for vectors without ids."""
    return isinstance(source, (Tensor, np.ndarray, list))


def one_row_a_file(ids: Sequence[str]) -> Tensor:
    """The rows ``(M,)`` int64, rising, without those whose id is the path of a file that another
    row has too: of several links the one that is the file itself stays, else the first. Several
    boxes of one file are several pictures.
    """
    first: dict[Any, int] = {}
    for row, name in enumerate(map(str, ids)):
        path, _, box = (name, '', '') if os.path.exists(name) else name.rpartition('#')
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # no file, as of a picture in memory
            first[row] = row
            continue
        held = first.setdefault((status.st_dev, status.st_ino, box), row)
        if held != row and not _is_linked(path) and _is_linked(str(ids[held])):
            first[status.st_dev, status.st_ino, box] = row
    return torch.tensor(sorted(first.values()), dtype=torch.int64)


def _is_linked(path: str) -> bool:
    """True where a part of the path is a symbolic link."""
    return os.path.realpath(path) != os.path.abspath(path)


# Pairs and groups --------------------------------------------------------------------------------


class Forest(NamedTuple):
    """The pairs that hold groups together; the most similar pair comes first.

    Args:
        rows: ``(P,)`` int64.
        others: ``(P,)`` int64.
        scores: ``(P,)`` float32.
    """

    rows: Tensor
    others: Tensor
    scores: Tensor


def similar_pairs(own: Tensor, theirs: Tensor | None, threshold: float,
                  similarity: str | SimilarityFn | Similarity) -> Forest:
    """The maximum spanning forest of the pairs whose similarity is at least ``threshold``.

    Memory is that of the vectors, one tile of scores and a million pairs, however many there are.

    Args:
        own: vectors ``(N, D)``.
        theirs: the vectors ``(M, D)`` that they are compared with, or None for one another.
        threshold: a similarity.
        similarity: a name or a callable.
    """
    shift = 0 if theirs is None else len(own)
    forest = _Growing(len(own) + (0 if theirs is None else len(theirs)))
    threshold = checked_threshold(threshold, similarity)
    for rows, others, scores in _tiles(own, theirs, threshold, similarity):
        forest.add(rows, others + shift, scores)
    rows, others, scores = forest.settle()
    order = np.lexsort((others, rows, -scores))
    return Forest(torch.from_numpy(rows[order]), torch.from_numpy(others[order] - shift),
                  torch.from_numpy(scores[order]))


Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


def _tiles(own: Tensor, theirs: Tensor | None, threshold: float,
           similarity: str | SimilarityFn | Similarity) -> Iterator[Edges]:
    """Every pair once, with its score, as it is found in a tile."""
    gallery = PreparedGallery(own if theirs is None else theirs, similarity)
    height, width = gallery.tiles(len(own))
    tops = range(0, len(own), height)
    for top in counted('Ranking', tops, len(tops), 'block'):
        queries = gallery.prepare_queries(own[top:top + height])
        for left, right in gallery.column_tiles(width):
            if theirs is None and right <= top:
                continue
            scores = gallery.scores(queries, left, right)
            rows, others = (scores >= threshold).nonzero(as_tuple=True)
            score, row, other = (part.cpu().numpy() for part in (
                scores[rows, others], rows + top, others + left))
            keep = other > row if theirs is None else slice(None)
            yield row[keep], other[keep], score[keep]


class _Growing:
    """The maximum spanning forest of the edges seen so far (Kruskal, 1956, in portions).

    Args:
        count: of nodes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        none = np.zeros(0, dtype=np.int64)
        self.edges: Edges = (none, none, np.zeros(0, dtype=np.float32))
        self.tree = np.arange(count)  # which tree each node is in
        self.weakest = np.full(count, np.inf, dtype=np.float32)  # the lowest score in each tree
        self.waiting: list[Edges] = []
        self.held = 0

    def add(self, rows: np.ndarray, others: np.ndarray, scores: np.ndarray) -> None:
        """Note edges, but for those that cannot be in it: within a tree, and no better than all
        that connects their two ends there.
        """
        tree = self.tree[rows]
        keep = (tree != self.tree[others]) | (scores > self.weakest[tree])
        if keep.any():
            self.waiting.append((rows[keep], others[keep], scores[keep]))
            self.held += int(keep.sum())
        if self.held > _HELD:
            self.settle()

    def settle(self) -> Edges:
        """Take in what was noted, and return the forest's edges."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import minimum_spanning_tree

        rows, others, scores = (np.concatenate(part) for part in zip(
            self.edges, *self.waiting, strict=True))
        order = np.lexsort((others, rows, -scores))  # among equal scores the lower rows first
        rank = np.empty(len(order))
        rank[order] = np.arange(1, len(order) + 1)
        shape = (self.count, self.count)
        tree = minimum_spanning_tree(coo_array((rank, (rows, others)), shape=shape)).tocoo()
        kept = order[np.sort(tree.data).astype(np.int64) - 1]
        self.edges = rows[kept], others[kept], scores[kept]
        self.tree = connected(rows[kept], others[kept], self.count)
        self.weakest.fill(np.inf)
        np.minimum.at(self.weakest, self.tree[rows[kept]], scores[kept])
        self.waiting, self.held = [], 0
        return self.edges


def _groups(forest: Forest, count: int,
            other_count: int | None) -> list[tuple[list[int], list[int]]]:
    """The connected components with more than one member, largest first."""
    rows, others = forest.rows.numpy(), forest.others.numpy()
    shift = 0 if other_count is None else count
    labels = connected(rows, others + shift, count + (other_count or 0))
    members: dict[int, tuple[list[int], list[int]]] = {}
    for node in np.unique(np.concatenate([rows, others + shift])).tolist():
        group = members.setdefault(int(labels[node]), ([], []))
        group[node >= shift > 0].append(node if node < count else node - count)
    return sorted(members.values(), key=lambda group: (-len(group[0]) - len(group[1]), group))


def connected(rows: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """The connected component of each of ``count`` nodes, given the edges' two ends."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, others)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
