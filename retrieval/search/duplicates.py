"""Near-duplicates within a set and between sets, by range search."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gallery import Gallery
from ..ranking import PreparedGallery, as_vectors, within
from ..similarity import Similarity, SimilarityFn

_BLOCK = 2048
MOST_PAIRS = 10_000_000


@dataclass
class Duplicates:
    """Pairs of rows that are too similar, and the groups that they connect.

    Args:
        rows: ``(P,)`` int64, rows of the gallery; the most similar pair comes first.
        others: ``(P,)`` int64, rows of the other set, or higher rows of the same.
        scores: ``(P,)`` float32, the similarities.
        groups: for each group its rows of the gallery and, where there are two sets, its rows of
            the other; the largest group first.
        ids: the ids of the gallery's rows.
        other_ids: those of the other set, or None where there is one set.
    """

    rows: Tensor
    others: Tensor
    scores: Tensor
    groups: list[tuple[list[int], list[int]]]
    ids: Sequence[str]
    other_ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

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
        return dict(pairs=pairs, groups=groups)

    def redundant(self) -> list[int]:
        """Rows of the gallery to leave out, rising: all but the first of each group within a set;
        between sets, every row that has a near-duplicate in the other.
        """
        if self.other_ids is None:
            return sorted(row for rows, _ in self.groups for row in sorted(rows)[1:])
        return torch.unique(self.rows).tolist()


def find_duplicates(gallery: Any, other: Any = None, threshold: float = 0.95,
                    similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                    max_pairs: int = MOST_PAIRS) -> Duplicates:
    """Pairs whose similarity is at least ``threshold``.

    Args:
        gallery: a gallery, its file, or vectors ``(N, D)``.
        other: another set, to find what two splits share; None for pairs within the gallery.
        threshold: a similarity. What a near-duplicate is depends on the encoder: look at the
            pairs near the threshold.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        max_pairs: give up when there are more.

    Raises:
        ValueError: there are more than ``max_pairs``, or the sets were made by different models.
        TypeError, FileNotFoundError: a set is of another kind, or missing.

    Example:
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.001]], dtype=np.float32)
        >>> len(find_duplicates(rows))
        1
    """
    own, ids, made = vectors_of(gallery, 'gallery')
    if other is None:
        theirs, other_ids = own, None
    else:
        theirs, other_ids, by = vectors_of(other, 'other')
        differences = made.differences(by) if made and by else []
        if differences:
            raise ValueError('The two sets were made by another model or pipeline: '
                             f'{" and ".join(differences)} differ, so their similarities would '
                             'mean nothing. Encode both with one model.')
    rows, others, scores = similar_pairs(own, PreparedGallery(theirs, similarity), threshold,
                                  other is None, max_pairs)
    order = torch.sort(scores, descending=True, stable=True).indices
    rows, others, scores = rows[order], others[order], scores[order]
    groups = _groups(rows, others, len(own), None if other is None else len(theirs))
    return Duplicates(rows, others, scores, groups, ids, other_ids)


def vectors_of(source: Any, name: str) -> tuple[Tensor, Sequence[str], Any]:
    """The vectors ``(N, D)``, ids and fingerprint (or None) of a gallery, its file, or vectors."""
    if isinstance(source, (Tensor, np.ndarray, list)):
        vectors = as_vectors(source, name)
        return vectors, [str(row) for row in range(len(vectors))], None
    gallery = source if isinstance(source, Gallery) else Gallery.load(source)
    return gallery.embeddings, gallery.ids, gallery.fingerprint


def similar_pairs(queries: Tensor, gallery: PreparedGallery, threshold: float, same: bool,
           max_pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, other row and score of every pair, in rising order of rows."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    count = 0
    for start in range(0, len(queries), _BLOCK):
        near = within(queries[start:start + _BLOCK], gallery, threshold)
        row = start + torch.repeat_interleave(near.offsets.diff())
        other, score = near.indices.cpu(), near.scores.cpu()
        if same:  # each pair once, and no row with itself
            keep = other > row
            row, other, score = row[keep], other[keep], score[keep]
        count += len(row)
        if count > max_pairs:
            raise ValueError(f'More than {max_pairs} pairs reach {threshold:g}: raise the '
                             'threshold, or max_pairs.')
        found.append((row, other, score))
    rows, others, scores = (torch.cat(column) for column in zip(*found, strict=True))
    return rows, others, scores


def _groups(rows: Tensor, others: Tensor, count: int,
            other_count: int | None) -> list[tuple[list[int], list[int]]]:
    """The connected components with more than one member, largest first."""
    total = count + (other_count or 0)
    shift = 0 if other_count is None else count
    labels = connected(rows, others + shift, total)
    members: dict[int, tuple[list[int], list[int]]] = {}
    touched = torch.unique(torch.cat([rows, others + shift])).tolist()
    for node in touched:
        group = members.setdefault(int(labels[node]), ([], []))
        group[node >= shift > 0].append(node if node < count else node - count)
    return sorted(members.values(), key=lambda group: (-len(group[0]) - len(group[1]), group))


def connected(rows: Tensor, others: Tensor, count: int) -> np.ndarray:
    """The connected component of each of ``count`` nodes, given the edges' two ends."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = (rows.cpu().numpy(), others.cpu().numpy())
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(count, count))
    return connected_components(graph, directed=False)[1]
