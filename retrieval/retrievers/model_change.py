"""From one model to another while the gallery is being encoded anew: both kinds of rows in one ranking."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
_FEWEST = 20


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
        ValueError: there are fewer than 20 rows, or not as many of each.

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

    A row that is not is scored by the old model's embeddings, as before. One that is is scored by
    both: the old score, and the new one moved and stretched to the old one's scale, so that the
    rows of both kinds stand in one ranking. The old score of a query is that of its old
    embedding, or of the new one mapped (:func:`learn_map`).

    Args:
        old: the whole gallery, by the old model.
        new: rows of some of its ids, by the new one.
        weight: of the new score where there are both, up to 1.

    Raises:
        ValueError: ids are missing, or the new gallery has fewer than 20 rows of the old one's.

    Example:
        >>> rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> ids = list(map(str, range(100)))
        >>> change = ModelChange(Gallery(rows, ids), Gallery(rows[:50] @ torch.eye(8)[::2].T,
        ...                                                  ids[:50]))
        >>> change.share, tuple(change.gallery.embeddings.shape)
        (0.5, (100, 13))
    """

    def __init__(self, old: Gallery, new: Gallery, weight: float = 0.5) -> None:
        self.weight = real_number('weight', weight, above=0, most=1)
        if not old.identified or not new.identified:
            raise ValueError('The rows of both galleries are matched by their ids: dump both with '
                             'ids.')
        self.old, self.new = old, new
        place = new.ids.find(old.ids)  # row of the new gallery for each of the old one
        self.encoded = torch.from_numpy(place >= 0)
        if int(self.encoded.sum()) < _FEWEST:
            raise ValueError(f'{int(self.encoded.sum())} pictures are encoded by both models, and '
                             f'{_FEWEST} at least are needed to compare their scores.')
        self._old = normalize(old.embeddings.float())
        self._new = normalize(new.embeddings.float()[torch.from_numpy(place[place >= 0])])

    @property
    def share(self) -> float:
        """Of the rows that the new model has encoded."""
        return float(self.encoded.float().mean())

    @cached_property
    def map(self) -> EmbeddingMap:
        """From the new model's embeddings to the old one's."""
        return learn_map(self._new, self._old[self.encoded])

    @cached_property
    def scale(self) -> tuple[float, float]:
        """What a new score is multiplied by, and what is added, to be like an old one."""
        some = torch.randperm(len(self._new), generator=torch.Generator().manual_seed(0))[:1000]
        rows, columns = torch.triu_indices(len(some), len(some), 1)
        old, new = ((one[some] @ one[some].T)[rows, columns]
                    for one in (self._old[self.encoded], self._new))
        factor = float(old.std() / new.std().clamp(min=1e-6))
        return factor, float(old.mean()) - factor * float(new.mean())

    @cached_property
    def gallery(self) -> Gallery:
        """The rows ``(N, D + E + 1)`` that :meth:`queries` are compared with by inner product."""
        factor, added = self.scale
        rows = torch.zeros(len(self._old), self._old.shape[1] + self._new.shape[1] + 1)
        rows[:, :self._old.shape[1]] = self._old
        rows[self.encoded] = torch.cat([
            (1 - self.weight) * self._old[self.encoded], self.weight * factor * self._new,
            torch.full((len(self._new), 1), self.weight * added)], 1)
        return Gallery(rows, self.old.ids, self.old.labels, self.old.label_names,
                       self.old.metadata, skipped=self.old.skipped, similarity='inner_product')

    def queries(self, new: Tensor, old: Tensor | None = None) -> Tensor:
        """Embeddings ``(Q, D + E + 1)`` to search :attr:`gallery` with.

        Args:
            new: ``(Q, E)``, of the new model.
            old: ``(Q, D)``, of the old one; None: the new ones are mapped.
        """
        before = self.map(new) if old is None else normalize(old.float())
        return torch.cat([before, normalize(new.float()), new.new_ones(len(new), 1)], 1)


class ChangingEncoder(nn.Module):
    """The encoder of a change: images to the embeddings that :attr:`ModelChange.gallery` is
    searched with.

    Args:
        change: of the models.
        new: the new model's encoder.
        old: the old model's, where both take the same images; None: the new embeddings are mapped.
    """

    def __init__(self, change: ModelChange, new: nn.Module, old: nn.Module | None = None) -> None:
        super().__init__()
        self.change, self.new, self.old = change, new, old

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to ``(B, D + E + 1)``."""
        new, old = (None if one is None else _last(one(images)).cpu()
                    for one in (self.new, self.old))
        assert new is not None
        return self.change.queries(new, old).to(images.device)


def _last(features: Any) -> Tensor:
    return features[-1] if isinstance(features, (tuple, list)) else features


def changing_retriever(change: ModelChange, new: ImageToImageRetriever,
                       old: ImageToImageRetriever | None = None) -> ImageToImageRetriever:
    """A retriever that searches both kinds of rows.

    Args:
        change: of the two models' galleries.
        new: the new model.
        old: the old one, which encodes every query too where its preprocessor is the same; else,
            and where it is None, new embeddings are mapped.

    Example:
        >>> rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> ids = list(map(str, range(60)))
        >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> change = ModelChange(Gallery(rows, ids), Gallery(rows[:30], ids[:30]))
        >>> model = changing_retriever(change, ImageToImageRetriever(mean, topk=1))
        >>> model.predict(rows[40].reshape(1, 3, 1, 1))[0].pred_label
        tensor([40])
    """
    same = old is not None and _settings(old) == _settings(new)
    encoder = ChangingEncoder(change, new.image_encoder,
                              old.image_encoder if same and old is not None else None)
    return ImageToImageRetriever(encoder, change.gallery, similarity_fn='inner_product',
                                 data_preprocessor=new.data_preprocessor,
                                 topk=new.topk, check_fingerprint=False).eval()


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
