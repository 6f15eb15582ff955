"""One ranking of old and new rows, while a gallery is being encoded anew by another model."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..checks import real_number
from ..gallery import Gallery
from ..ranking import topk
from ..similarity import normalize

_RIDGES = (0.01, 0.1)  # shares of the mean variance of a dimension
_PAIRED = 4000  # rows of both models from which the map is learned
_FEWEST = 10


@dataclass(frozen=True)
class EmbeddingMap:
    """An affine map from the embeddings of one model to those of another.

    Args:
        matrix: ``(D, E)`` float32.
        offset: ``(E,)`` float32.
        unseen_matrix: ``(D, D)`` float32, see :meth:`unseen`.
        unseen_offset: ``(D,)`` float32.
        kind: ``'ridge 0.1'`` or the like.
        agreement: on rows that it has not seen, the share of the first ten results of the other
            model's embedding that the mapped one finds.
        cosine: on them, the mean cosine of the other model's embedding and the mapped one.
    """

    matrix: Tensor
    offset: Tensor
    unseen_matrix: Tensor
    unseen_offset: Tensor
    kind: str
    agreement: float
    cosine: float

    def __call__(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` to ``(N, E)`` float32, at length 1."""
        rows = normalize(embeddings.float())
        return normalize(rows @ self.matrix.to(rows.device) + self.offset.to(rows.device))

    def unseen(self, embeddings: Tensor) -> Tensor:
        """The part that the rows it is learned from say little of, ``(N, D)`` float32.

        The inner product of two of them stands for what the other model sees beside what is mapped:
        where the map knows nothing, pictures are as alike as the first model says.
        """
        rows = normalize(embeddings.float())
        return rows @ self.unseen_matrix.to(rows.device) + self.unseen_offset.to(rows.device)


def learn_map(source: Any, target: Any, seed: int = 0) -> EmbeddingMap:
    """The map from one model's embeddings to another's, of the same pictures.

    A ridge regression, by the ridge that agrees best on a fifth of the rows, which it is not
    learned from; then of all of them. That a linear map suffices between models of related
    pictures is what Hu et al. ("Learning backward compatible embeddings", KDD 2022) build on. What
    is not seen is the same regression's posterior covariance (Rasmussen & Williams, "Gaussian
    processes for machine learning", 2006, section 2.1), of the size that the fifth shows: one less
    the cosine, in the mean.

    Args:
        source, target: ``(N, D)`` and ``(N, E)`` floats, row by row of the same pictures.
        seed: of the draw of the rows.

    Raises:
        ValueError: there are fewer than 10 rows, or not as many of each.

    Example:
        >>> rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = rows @ torch.linalg.qr(torch.randn(8, 8))[0]
        >>> learn_map(rows, turned).agreement > 0.95
        True
    """
    source, target = (normalize(torch.as_tensor(one).float()) for one in (source, target))
    if len(source) != len(target) or len(source) < _FEWEST:
        raise ValueError(f'A map is learned from the same pictures by two models, {_FEWEST} or '
                         f'more of them; got {len(source)} and {len(target)} rows.')
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:_PAIRED]
    held, seen = order[:len(order) // 5], order[len(order) // 5:]
    k = min(10, len(target) - 1)
    wanted = topk(target[held], target, k, exclude=held).indices
    learned = []
    for one in _ridges(source[seen], target[seen], _RIDGES):
        mapped = one(source[held])
        found = topk(mapped, target, k, exclude=held).indices
        agreement = float((found[:, :, None] == wanted[:, None]).any(2).float().mean())
        cosine = float((mapped * target[held]).sum(1).mean())
        unseen = float(one.unseen(source[held]).square().sum(1).mean())
        learned.append((agreement, cosine, ((1 - cosine) / max(unseen, 1e-9)) ** 0.5))
    best = max(range(len(learned)), key=lambda number: learned[number][0])
    agreement, cosine, size = learned[best]
    chosen, = _ridges(source[order], target[order], _RIDGES[best:best + 1])
    return replace(chosen, agreement=agreement, cosine=max(cosine, 0.),
                   unseen_matrix=size * chosen.unseen_matrix,
                   unseen_offset=size * chosen.unseen_offset)


def _ridges(source: Tensor, target: Tensor, ridges: Sequence[float]) -> Iterator[EmbeddingMap]:
    """Regressions from rows ``(N, D)`` to ``(N, E)``, at length 1, one for each ridge."""
    source, target = source.double(), target.double()
    means = source.mean(0), target.mean(0)
    x, y = source - means[0], target - means[1]
    square, product, one = x.T @ x, x.T @ y, torch.eye(x.shape[1]).double()
    for share in ridges:
        ridge = max(share * float(square.trace()) / min(x.shape), 1e-9)
        factor = torch.linalg.cholesky(square + ridge * one)
        matrix = torch.cholesky_solve(product, factor)
        # its covariance, ridge * inverse(square + ridge), is that of the rows times this
        unseen = ridge ** 0.5 * torch.linalg.solve_triangular(factor, one, upper=False).T
        yield EmbeddingMap(matrix.float(), (means[1] - means[0] @ matrix).float(), unseen.float(),
                           (-means[0] @ unseen).float(), f'ridge {share:g}', 0., 0.)


class ModelChange:
    """A gallery of which a part is encoded by a new model already.

    A row holds the old model's embedding beside the new one's, and where that is not there yet,
    what the map makes of the old one (:func:`learn_map`, from the rows that are there), as short as
    it is poor, and beside it what the map knows too little of (:meth:`EmbeddingMap.unseen`; zeros,
    where the new one is there). So all rows are scored alike: by the mean of both models' cosines,
    by a weight, of which the new one is estimated where it is not known. The rows that are encoded
    by both teach the map what the new model tells apart, so that even a row that is not encoded
    anew is found better than before; where they teach little, the old model decides.

    Args:
        old: the whole gallery, by the old model.
        new: rows of some of its ids, by the new one.
        weight: of the new cosine, up to 1, where queries are encoded by the new model alone.
        learned: the map, where it is known already.

    Raises:
        ValueError: ids are missing, or the new gallery has fewer than 10 rows of the old one's.

    Example:
        >>> rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> ids = list(map(str, range(100)))
        >>> change = ModelChange(Gallery(rows, ids), Gallery(rows[:50, :4], ids[:50]))
        >>> change.share, tuple(change.gallery.embeddings.shape)
        (0.5, (100, 20))
    """

    def __init__(self, old: Gallery, new: Gallery, weight: float = 0.5,
                 learned: EmbeddingMap | None = None) -> None:
        self.weight = real_number('weight', weight, above=0, most=1)
        if not old.identified or not new.identified:
            raise ValueError('The rows of both galleries are matched by their ids: dump both with '
                             'ids.')
        self.old, self.new, self._learned = old, new, learned
        place = torch.from_numpy(new.ids.find(old.ids))  # in the new gallery, of each old row
        self.encoded = place >= 0
        count = int(self.encoded.sum())
        if count < _FEWEST:
            raise ValueError(f'{count} pictures are encoded by both models, and {_FEWEST} at least '
                             'are needed to map the others: encode more.')
        self._old = normalize(old.embeddings.float())
        self._new = normalize(new.embeddings.float()[place[self.encoded]])

    @property
    def share(self) -> float:
        """Of the rows that the new model has encoded."""
        return float(self.encoded.double().mean())

    @cached_property
    def map(self) -> EmbeddingMap:
        """From the old model's embeddings to the new one's."""
        return self._learned or learn_map(self._old[self.encoded], self._new)

    @cached_property
    def gallery(self) -> Gallery:
        """The rows ``(N, D + E + D)`` at length 1 that :meth:`join` makes queries for; ``(N, E)``
        with weight 1.
        """
        new = self.map(self._old)
        if self.weight < 1:
            new *= self.map.cosine ** 0.5
        new[self.encoded] = self._new
        if self.weight < 1:
            unseen = self.map.unseen(self._old)
            unseen[self.encoded] = 0
            new = self._joined(new, self._old, unseen)
        return Gallery(new, self.old.ids, self.old.labels,
                       self.old.label_names, self.old.metadata, skipped=self.old.skipped,
                       similarity='cosine_similarity')

    def join(self, new: Tensor, old: Tensor | None) -> Tensor:
        """Embeddings of the same pictures by both models as one, ``(Q, D + E + D)`` at length 1.

        Args:
            new: ``(Q, E)``, of the new model.
            old: ``(Q, D)``, of the old one; with weight 1 it is not read.
        """
        new = normalize(new.float())
        if old is None or self.weight == 1:
            return new
        return self._joined(new, normalize(old.float()), self.map.unseen(old))

    def queries(self, rows: Sequence[int]) -> Tensor:
        """Rows of the gallery as queries, ``(Q, D + E + D)`` at length 1.

        A row that is encoded is what :meth:`join` makes of its picture. One that is not is compared
        without what the map does not know, which the rows that are encoded do not have.
        """
        found = self.gallery.embeddings[list(rows)]
        if self.weight == 1:
            return found
        width = self._old.shape[1]
        found = self.join(found[:, width:-width], self._old[list(rows)])
        found[~self.encoded[list(rows)], -width:] = 0
        return normalize(found)

    def _joined(self, new: Tensor, old: Tensor, unseen: Tensor) -> Tensor:
        return normalize(torch.cat([(1 - self.weight) ** 0.5 * old, self.weight ** 0.5 * new,
                                    self.weight ** 0.5 * unseen], 1))


def in_order_of(ids: Sequence[str], counts: dict[str, int]) -> list[str]:
    """Ids with those that were found most often first, and the others as they are.

    Example:
        >>> in_order_of('abc', {'c': 2, 'b': 1})
        ['c', 'b', 'a']
    """
    return sorted(ids, key=lambda name: -counts.get(name, 0))
