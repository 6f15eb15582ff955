"""Whitening: a linear map after which no direction of the embeddings counts more than another.

The maps are fitted in float64 by the eigenvalues of a symmetric matrix.
"""
from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checks import whole_number
from ..registry import MODELS, unknown_name

_CHUNK = 8192  # rows that are held in float64 at a time


class WhiteningFit(NamedTuple):
    """A fitted map: ``(x - mean) @ projection.T``.

    Args:
        mean: ``(D,)`` float64.
        projection: ``(d, D)`` float64; its rows are ordered, the first counts most.
    """

    mean: np.ndarray
    projection: np.ndarray


@MODELS.register_module()
class Whitening(nn.Module):
    """``(x - mean) @ projection.T``, fitted and not trained: ``(B, C) -> (B, D)``.

    Before it is fitted the embeddings pass as they are, so that a config can have it from the start
    of training; in evaluation a warning says so. ``tools/fit_whitening.py`` fits it.

    Args:
        in_features: C.
        out_features: D, at most C; None: C.

    Raises:
        ValueError: a width that is no positive integer, or D above C.

    Example:
        >>> rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> whitening = Whitening(in_features=4, out_features=2)
        >>> whitening.set(fit_pca_whitening(rows, dim=2))
        >>> whitening(rows).shape
        torch.Size([50, 2])
    """

    mean: Tensor
    projection: Tensor
    fitted: Tensor

    def __init__(self, in_features: int, out_features: int | None = None) -> None:
        super().__init__()
        out_features = in_features if out_features is None else out_features
        whole_number('in_features', in_features)
        whole_number('out_features', out_features)
        if out_features > in_features:
            raise ValueError(f'A whitening from {in_features} to {out_features} would have to '
                             'invent directions: out_features is at most in_features.')
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer('mean', torch.zeros(in_features))
        self.register_buffer('projection', torch.eye(out_features, in_features))
        self.register_buffer('fitted', torch.tensor(False))
        self._warned = False

    def set(self, fit: WhiteningFit) -> None:
        """Take a fitted map over.

        Raises:
            ValueError: it has another width on either side.
        """
        wanted = (self.out_features, self.in_features)
        if fit.projection.shape != wanted or fit.mean.shape != wanted[1:]:
            raise ValueError(f'This whitening maps {wanted[1]} to {wanted[0]} numbers, what was '
                             f'fitted maps {fit.projection.shape[1]} to '
                             f'{fit.projection.shape[0]}.')
        self.mean.copy_(torch.from_numpy(fit.mean))
        self.projection.copy_(torch.from_numpy(fit.projection))
        self.fitted.fill_(True)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Raises ValueError for embeddings of another width."""
        if embeddings.shape[-1] != self.in_features:
            raise ValueError(f'The whitening takes embeddings of width {self.in_features}, got '
                             f'{embeddings.shape[-1]}: set in_features.')
        if not bool(self.fitted):
            if not self.training and not self._warned:
                self._warned = True
                print_log('The whitening is not fitted, embeddings pass as they are. Fit it with '
                          'tools/fit_whitening.py.', 'current', logging.WARNING)
            return embeddings
        with torch.autocast(embeddings.device.type, enabled=False):
            return (embeddings.float() - self.mean) @ self.projection.T

    def extra_repr(self) -> str:
        return f'{self.in_features}, {self.out_features}, fitted={bool(self.fitted)}'


def principal_components(embeddings: Any, dim: int | None = None) -> WhiteningFit:
    """The directions of most variance, without scaling: a projection that keeps what it can.

    Args:
        embeddings: array or tensor ``(N, D)``.
        dim: how many, at most D; None: all.

    Raises:
        ValueError: fewer than two embeddings, one that is not finite, or a ``dim`` outside its
            range.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> principal_components(rows).projection.shape
        (4, 4)
    """
    rows, dim = _checked(embeddings, dim)
    mean, covariance = _moments(rows)
    return WhiteningFit(mean, _eigen(covariance)[1][:dim])


def fit_pca_whitening(embeddings: Any, dim: int | None = None,
                      shrinkage: float = 0.0) -> WhiteningFit:
    """Principal components scaled to variance 1: the covariance of the result is the identity
    (Jégou and Chum, "Negative Evidences and Co-occurrences in Image Retrieval", ECCV 2012).

    Args:
        embeddings: array or tensor ``(N, D)``.
        dim: how many components are kept, at most D; None: all.
        shrinkage: in [0, 1); the covariance is mixed with so much of the multiple of the identity
            that has its trace. Directions of little variance are then blown up less.

    Raises:
        ValueError: fewer than two embeddings, one that is not finite, a ``dim`` or ``shrinkage``
            outside its range, or embeddings that span fewer than ``dim`` directions.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> fit_pca_whitening(rows).projection.shape
        (4, 4)
    """
    rows, dim = _checked(embeddings, dim)
    mean, covariance = _moments(rows)
    values, vectors = _eigen(_shrunk(covariance, shrinkage))
    _check_rank(values, dim, f'The {len(rows)} embeddings span')
    return WhiteningFit(mean, vectors[:dim] / np.sqrt(values[:dim, None]))


def fit_zca_whitening(embeddings: Any, dim: int | None = None,
                      shrinkage: float = 0.0) -> WhiteningFit:
    """The whitening that changes the embeddings least: PCA whitening, turned back (Bell and
    Sejnowski, "The 'Independent Components' of Natural Scenes are Edge Filters", 1997).

    Args:
        embeddings: array or tensor ``(N, D)``.
        dim: D or None; there is nothing to cut off.
        shrinkage: see :func:`fit_pca_whitening`.

    Raises:
        ValueError: as :func:`fit_pca_whitening`, or a ``dim`` below D.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> fit_zca_whitening(rows).projection.shape
        (4, 4)
    """
    rows, dim = _checked(embeddings, dim)
    if dim != rows.shape[1]:
        raise ValueError(f'ZCA whitening keeps all {rows.shape[1]} directions, and {dim} were '
                         "asked for: take method 'pca' to reduce.")
    mean, covariance = _moments(rows)
    values, vectors = _eigen(_shrunk(covariance, shrinkage))
    _check_rank(values, dim, f'The {len(rows)} embeddings span')
    return WhiteningFit(mean, vectors.T / np.sqrt(values) @ vectors)


def fit_learned_whitening(embeddings: Any, labels: Any = None, pairs: Any = None,
                          dim: int | None = None, shrinkage: float = 0.0) -> WhiteningFit:
    """Whitening by the differences of matching pairs, then principal components (Mikolajczyk and
    Matas, "Improving Descriptors for Fast Tree Matching by Optimal Linear Projection", ICCV 2007;
    Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018).

    With S the mean of ``(a - b)(a - b)^T`` over matching pairs, the directions are the principal
    components of all embeddings times S^(-1/2).

    Args:
        embeddings: array or tensor ``(N, D)``.
        labels: classes ``(N,)``: all pairs within a class match; or
        pairs: rows ``(P, 2)`` of the embeddings that match.
        dim: how many directions are kept, at most D; None: all.
        shrinkage: see :func:`fit_pca_whitening`; of S.

    Raises:
        ValueError: as :func:`fit_pca_whitening`, neither or both of labels and pairs, no pair at
            all, or matching pairs whose differences do not span all D directions, which without
            shrinkage has no inverse.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> fit_learned_whitening(rows, labels=np.arange(50) % 10, dim=2).projection.shape
        (2, 4)
    """
    if (labels is None) == (pairs is None):
        raise ValueError('Learned whitening needs to know what matches: give labels, or pairs of '
                         'rows, and not both.')
    rows, dim = _checked(embeddings, dim)
    mean, covariance = _moments(rows)
    within = _shrunk(_pair_covariance(rows, pairs) if labels is None
                     else _class_covariance(rows, labels), shrinkage)
    values, vectors = _eigen(within)
    _check_rank(values, rows.shape[1], 'The differences of matching pairs span')
    root = vectors.T / np.sqrt(values) @ vectors
    _, directions = _eigen(root @ covariance @ root)
    return WhiteningFit(mean, _signed(directions[:dim] @ root))


METHODS = ('pca', 'learned', 'zca')


def fit_whitening(embeddings: Any, method: str = 'pca', labels: Any = None, pairs: Any = None,
                  dim: int | None = None, shrinkage: float = 0.0) -> WhiteningFit:
    """One of the fits by name: ``'pca'``, ``'learned'`` or ``'zca'``.

    Raises:
        ValueError: another name, or what the fit refuses.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> fit_whitening(rows, 'pca', dim=3).projection.shape
        (3, 4)
    """
    if method == 'learned':
        return fit_learned_whitening(embeddings, labels, pairs, dim, shrinkage)
    if method not in METHODS:
        raise ValueError(unknown_name('method of whitening', method, METHODS))
    fit = fit_pca_whitening if method == 'pca' else fit_zca_whitening
    return fit(embeddings, dim, shrinkage)


# What the fits are made of ---------------------------------------------------------------------

def _checked(embeddings: Any, dim: int | None) -> tuple[np.ndarray, int]:
    rows = embeddings.detach().cpu().numpy() if isinstance(embeddings, Tensor) \
        else np.asarray(embeddings)
    if rows.ndim != 2 or len(rows) < 2 or rows.dtype.kind != 'f':
        raise ValueError('Whitening is fitted to at least two embeddings (N, D) of floating point, '
                         f'got {rows.dtype} of shape {rows.shape}.')
    for start in range(0, len(rows), _CHUNK):
        if not np.isfinite(rows[start:start + _CHUNK]).all():
            raise ValueError('The embeddings are not finite: there is a NaN or an infinity in '
                             f'rows {start} to {start + _CHUNK}.')
    width = rows.shape[1]
    return rows, width if dim is None else whole_number('dim', dim, most=width)


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean ``(D,)`` and covariance ``(D, D)`` (over N) of rows, float64."""
    mean = rows.mean(0, dtype=np.float64)
    return mean, _mean_square(rows, mean)


def _mean_square(rows: np.ndarray, centre: np.ndarray | float = 0.0) -> np.ndarray:
    """The mean of ``(x - centre)(x - centre)^T`` over rows, ``(D, D)`` float64."""
    total = np.zeros((rows.shape[1],) * 2)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start:start + _CHUNK].astype(np.float64) - centre
        total += part.T @ part
    return total / len(rows)


def _pair_covariance(rows: np.ndarray, pairs: Any) -> np.ndarray:
    found = np.asarray(pairs)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found) or found.dtype.kind not in 'iu':
        raise ValueError('pairs must be row numbers (P, 2), at least one pair, got '
                         f'{found.dtype} of shape {found.shape}.')
    if found.min() < 0 or found.max() >= len(rows):
        raise ValueError(f'pairs name rows {found.min()} to {found.max()} of {len(rows)} '
                         'embeddings.')
    total = np.zeros((rows.shape[1],) * 2)
    for start in range(0, len(found), _CHUNK):
        first, second = (rows[found[start:start + _CHUNK, side]].astype(np.float64)
                         for side in (0, 1))
        total += (first - second).T @ (first - second)
    return total / len(found)


def _class_covariance(rows: np.ndarray, labels: Any) -> np.ndarray:
    """The mean of ``(a - b)(a - b)^T`` over all pairs within classes.

    Over the ordered pairs of a class of n the sum is 2 n times that of ``(a - m)(a - m)^T``, with
    m their mean.
    """
    known = np.asarray(labels)
    if known.shape != (len(rows),):
        raise ValueError(f'labels must be one a row, ({len(rows)},), got shape {known.shape}.')
    total, count = np.zeros((rows.shape[1],) * 2), 0
    order = np.argsort(known, kind='stable')
    _, starts = np.unique(known[order], return_index=True)
    for members in np.split(order, starts[1:]):
        size = len(members)
        if size < 2:
            continue
        mine = rows[members]
        total += 2 * size * size * _mean_square(mine, mine.mean(0, dtype=np.float64))
        count += size * (size - 1)
    if not count:
        raise ValueError('No class has two images, so there is no matching pair to learn from: '
                         "take method 'pca'.")
    return total / count


def _shrunk(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    if not 0 <= shrinkage < 1:
        raise ValueError(f'shrinkage must be in [0, 1), got {shrinkage!r}.')
    level = np.trace(covariance) / len(covariance)
    return (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``(D,)`` descending, and the eigenvectors as rows ``(D, D)``."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], _signed(vectors.T[::-1])


def _signed(rows: np.ndarray) -> np.ndarray:
    """Rows whose largest entry is positive, since an eigenvector's sign is left to chance."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows * np.where(largest < 0, -1.0, 1.0)


def _check_rank(values: np.ndarray, dim: int, what: str) -> None:
    # float32 embeddings: directions below their rounding are noise
    floor = max(values[0], 0) * np.finfo(np.float32).eps ** 2 * len(values)
    rank = int((values > floor).sum())
    if rank < dim:
        raise ValueError(f'{what} {rank} of the {dim} directions that are needed. Give more '
                         f'images, a dim of at most {rank} (method pca), or some shrinkage, such '
                         'as 0.1.')


def build_whitening(whitening: int | dict[str, Any] | nn.Module | None,
                    in_features: int | None) -> nn.Module:
    """A whitening from its width, config or module; identity for None.

    Raises:
        ValueError: the embeddings' width is needed and unknown.
        TypeError: it is something else.
    """
    if whitening is None:
        return nn.Identity()
    if isinstance(whitening, nn.Module):
        return whitening
    if isinstance(whitening, int) and not isinstance(whitening, bool):
        whitening = {'out_features': whitening}
    if not isinstance(whitening, dict):
        raise TypeError('whitening must be a width, a config such as dict(out_features=128) or a '
                        f'module, got {type(whitening).__name__}.')
    if in_features is None and 'in_features' not in whitening:
        raise ValueError('Nothing says how wide the embeddings are that are to be whitened: give '
                         'whitening=dict(in_features=…).')
    return MODELS.build({'type': 'retrieval.Whitening', 'in_features': in_features, **whitening})
