"""One ranking of old and new rows, while a gallery is being encoded anew by another model."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import real_number
from ..gallery import Gallery
from ..ranking import topk
from ..similarity import normalize
from .image_to_image import ImageToImageRetriever

_RIDGES = (0.01, 0.1, 1.0)  # shares of the mean variance of a dimension
_PAIRED = 4000  # rows of both models from which the map is learned
_FEWEST = 10


@dataclass(frozen=True)
class EmbeddingMap:
    """An affine map from the embeddings of one model to those of another.

    Args:
        matrix: ``(D, E)`` float32.
        offset: ``(E,)`` float32.
        kind: ``'ridge 0.1'`` or the like, or ``'orthogonal'``.
        agreement: on rows that it has not seen, the share of the first ten results of the other
            model's embedding that the mapped one finds.
    """

    matrix: Tensor
    offset: Tensor
    kind: str
    agreement: float

    def __call__(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` to ``(N, E)`` float32, at length 1."""
        return normalize(normalize(embeddings.float()) @ self.matrix + self.offset)


def learn_map(source: Any, target: Any, seed: int = 0) -> EmbeddingMap:
    """The map from one model's embeddings to another's, of the same pictures.

    A ridge regression or an orthogonal map (Schönemann, "A generalized solution of the orthogonal
    Procrustes problem", Psychometrika 1966), whichever agrees best on a fifth of the rows, which
    it is not learned from; then of all of them. That a linear map suffices between models of
    related pictures is what Hu et al. ("Learning backward compatible embeddings", KDD 2022) build
    on.

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

    def agreement(kind: str) -> float:
        mapped = EmbeddingMap(*_solved(source[seen], target[seen], kind), kind, 0.)(source[held])
        found = topk(mapped, target, k, exclude=held).indices
        return float((found[:, :, None] == wanted[:, None]).any(2).float().mean())
    kinds = [*(f'ridge {ridge:g}' for ridge in _RIDGES), 'orthogonal']
    shares = [agreement(kind) for kind in kinds]
    best = int(np.argmax(shares))
    return EmbeddingMap(*_solved(source[order], target[order], kinds[best]), kinds[best],
                        shares[best])


def _solved(source: Tensor, target: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Matrix ``(D, E)`` and offset ``(E,)``, float32."""
    source, target = source.double(), target.double()
    if kind == 'orthogonal':
        left, _, right = torch.linalg.svd(source.T @ target, full_matrices=False)
        return (left @ right).float(), torch.zeros(target.shape[1])
    means = source.mean(0), target.mean(0)
    x, y = source - means[0], target - means[1]
    ridge = float(kind.split()[1]) * float(x.square().sum()) / min(x.shape)
    if len(x) < x.shape[1]:
        matrix = x.T @ torch.linalg.solve(x @ x.T + ridge * torch.eye(len(x)).double(), y)
    else:
        matrix = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1]).double(), x.T @ y)
    return matrix.float(), (means[1] - means[0] @ matrix).float()


class ModelChange:
    """A gallery of which a part is encoded by a new model already.

    A row holds the old model's embedding beside the new one's, and where that is not there yet,
    what the map makes of the old one (:func:`learn_map`, from the rows that are there). So all
    rows are scored alike: the cosine is the mean of both models', by a weight. The rows that are
    encoded by both teach the map what the new model tells apart, so that even a row that is not
    encoded anew is found better than before.

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
        (0.5, (100, 12))
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
        """The rows ``(N, D + E)`` that :meth:`join` makes queries for; ``(N, E)`` with weight 1."""
        new = self.map(self._old)
        new[self.encoded] = self._new
        return Gallery(self.join(new, self._old), self.old.ids, self.old.labels,
                       self.old.label_names, self.old.metadata, skipped=self.old.skipped,
                       similarity='cosine_similarity')

    def join(self, new: Tensor, old: Tensor | None) -> Tensor:
        """Embeddings of the same pictures by both models as one, ``(Q, D + E)`` at length 1.

        Args:
            new: ``(Q, E)``, of the new model.
            old: ``(Q, D)``, of the old one; with weight 1 it is not read.
        """
        new = self.weight ** 0.5 * normalize(new.float())
        if old is None or self.weight == 1:
            return normalize(new)
        return torch.cat([(1 - self.weight) ** 0.5 * normalize(old.float()), new], 1)


class ChangingEncoder(nn.Module):
    """Images to the embeddings that :attr:`ModelChange.gallery` is searched with.

    Args:
        change: of the models.
        new: the new model's encoder.
        old: the old one's, which takes the same images; None with weight 1.
    """

    def __init__(self, change: ModelChange, new: nn.Module, old: nn.Module | None) -> None:
        super().__init__()
        self.change, self.new, self.old = change, new, old

    @property
    def has_words(self) -> bool:
        """True where each model that encodes queries has a text tower."""
        return all(getattr(one, 'has_words', False) for one in (self.new, self.old or self.new))

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Texts to ``(B, D + E)``."""
        one: Any = self.old
        return self.change.join(cast(Any, self.new).embed_words(texts),
                                None if one is None else one.embed_words(texts))

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to ``(B, D + E)``."""
        old = None if self.old is None else _last(self.old(images))
        return self.change.join(_last(self.new(images)), old)


def _last(features: Any) -> Tensor:
    return features[-1] if isinstance(features, (tuple, list)) else features


def changing_retriever(old_gallery: Gallery, new_gallery: Gallery, new: ImageToImageRetriever,
                       old: ImageToImageRetriever | None = None,
                       learned: EmbeddingMap | None = None) -> ImageToImageRetriever:
    """A retriever that searches the rows of both models.

    Args:
        old_gallery, new_gallery: see :class:`ModelChange`.
        new: the new model.
        old: the old one, where both see the same pixels, so that every query is encoded by both;
            where it is None, or its data preprocessor another one, by the new one alone.
        learned: the map between them, where it is known already.

    Example:
        >>> rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> ids = list(map(str, range(60)))
        >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = changing_retriever(Gallery(rows, ids), Gallery(rows[:30], ids[:30]),
        ...                            ImageToImageRetriever(mean, topk=1))
        >>> model.predict(rows[40].reshape(1, 3, 1, 1))[0].pred_label
        tensor([40])
    """
    if old is not None and _settings(old) != _settings(new):
        old = None
    change = ModelChange(old_gallery, new_gallery, 1. if old is None else 0.5, learned)
    encoder = ChangingEncoder(change, new.image_encoder, None if old is None else old.image_encoder)
    return ImageToImageRetriever(encoder, change.gallery, topk=new.topk, check_fingerprint=False,
                                 data_preprocessor=new.data_preprocessor).eval()


def _settings(model: ImageToImageRetriever) -> Any:
    settings = getattr(model.data_preprocessor, 'settings', None)
    return settings() if callable(settings) else None


def in_order_of(ids: Sequence[str], counts: dict[str, int]) -> list[str]:
    """Ids with those that were found most often first, and the others as they are.

    Example:
        >>> in_order_of('abc', {'c': 2, 'b': 1})
        ['c', 'b', 'a']
    """
    return sorted(ids, key=lambda name: -counts.get(name, 0))
