"""Vectors as the engine wants them, and a gallery that is prepared once to be scored in tiles."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..registry import unknown_name
from ..similarity import Similarity, SimilarityFn, centre_of, distances, resolve_similarity

PRECISIONS = ('auto', 'float32', 'half')
TILE_BUDGET = 2 ** 21  # scores that a thread holds at once: 8 MB in float32
# The last columns of a product are rounded otherwise where they do not fill a vector register, so
# that equal gallery vectors would not tie. Rows of zeros fill it.
_ROW_MULTIPLE = 64
_QUERY_ROWS = 384  # with this many the product runs fastest
_FEW = 8           # so few queries are multiplied one by one: the gallery passes through once
_CACHED = 2 ** 19  # numbers of a gallery's part that stays in the cache from one query to the next
_FEW_COLUMNS = 2 ** 16
_WHOLE_ROWS = 16   # a tile that spans the gallery has so many queries at least
# The longest vectors whose products, or distances, are sure to be below 3.4e38.
_LONGEST = {'product': 9e18, 'distance': 1.6e38}
_CHECKED_ROWS = 8192  # rows looked at together while the first bad one is searched


def as_vectors(values: Any, name: str = 'embeddings', width: int | None = None) -> Tensor:
    """``values`` as a float32 tensor ``(N, D)`` on the device that they are on.

    Args:
        values: an array, tensor or nested sequence of floats ``(N, D)``; float16, bfloat16 and
            float64 are converted.
        name: what the vectors are, for the error messages.
        width: the number of columns that they must have, or None.

    Raises:
        TypeError: it holds no floats.
        ValueError: it is not two-dimensional, has another width, or holds NaN or infinity.

    Example:
        >>> as_vectors([[1., 2.], [3., 4.]])
        tensor([[1., 2.],
                [3., 4.]])
    """
    vectors = _as_tensor(values, name)
    if not vectors.is_floating_point():
        raise TypeError(f'{name} must hold floats, got {vectors.dtype}: convert to float32.')
    if vectors.ndim != 2:
        raise ValueError(f'{name} must be two-dimensional (N, D), got {tuple(vectors.shape)}'
                         f'{": give one vector as [vector]" if vectors.ndim == 1 else ""}.')
    if vectors.shape[1] == 0:
        raise ValueError(f'{name} have no columns: {tuple(vectors.shape)}.')
    if width is not None and vectors.shape[1] != width:
        raise ValueError(f'{name} have {vectors.shape[1]} columns, but {width} are needed: '
                         'both sides must come from the same encoder.')
    vectors = vectors.to(torch.float32)
    _check_finite(vectors, name)
    return vectors


class PreparedGallery:
    """A gallery's vectors, made ready once for one similarity.

    Args:
        vectors: ``(N, D)`` float32, or a half type or int8, which is scored in float32 tile by
            tile.
        similarity: a name or a callable ``(Q, D), (N, D) -> (Q, N)``.
        prepared: the vectors are what :func:`prepared_rows` returned.
        count: N, where ``vectors`` carry further rows of zeros behind.
        precision: of the products by which :func:`retrieval.ranking.topk` searches; the scores
            are float32's all the same. ``auto`` takes the half precision for many products on
            a CPU that was measured to be faster with it; ``float32`` and ``half`` are that.
        scales: ``(N,)`` float32, what the rows of ``vectors`` are multiplied by, for int8 of a
            similarity that is a product; further ones are passed over.

    Raises:
        ValueError: the gallery is empty, a vector is too long, or the precision is unknown or not
            to be had for a similarity that is no product.

    Example:
        >>> gallery = PreparedGallery(torch.tensor([[3., 4.], [0., 2.]]), 'inner_product')
        >>> gallery.scores(gallery.prepare_queries([[1., 1.]]))
        tensor([[7., 2.]])
    """

    def __init__(self, vectors: Tensor,
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 prepared: bool = False, count: int | None = None,
                 precision: str = 'auto', scales: Tensor | None = None) -> None:
        self.similarity = resolve_similarity(similarity)
        self.scales = scales
        self.count = len(vectors) if count is None else count
        if self.count == 0:
            raise ValueError('The gallery is empty: add embeddings before searching.')
        if not prepared:
            vectors = prepared_rows(vectors, self.similarity, 'gallery')
        self.vectors = self._filled(vectors)
        self.centre: Tensor | None = None
        self.squares: Tensor | None = None
        if self.similarity.kind == 'distance':
            self.centre = centre_of(vectors[:self.count])
            self.squares = torch.cat([(part.double() - self.centre).square().sum(dim=1)
                                      for part in self.vectors.split(_CHECKED_ROWS)])
        self.precision = checked_precision(precision, self.similarity) if scales is None else \
            'float32'

    @cached_property
    def half_rows(self) -> HalfRows:
        """The rows rounded to half precision."""
        return HalfRows.of(self)

    @cached_property
    def rough_rows(self) -> RoughRows:
        """The rows of a distance, to be ranked by products in float32."""
        return RoughRows.of(self)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return self.count

    def prepare_queries(self, queries: Any) -> Tensor:
        """The queries ``(Q, D)`` as :meth:`scores` wants them.

        Raises:
            TypeError, ValueError: they are no finite vectors of the gallery's width.
        """
        queries = as_vectors(queries, 'queries', self.width).to(self.vectors.device)
        return prepared_rows(queries, self.similarity, 'queries')

    @property
    def on_cpu(self) -> bool:
        """Tiles can be scored by :meth:`score_into`, in threads."""
        return self.similarity.symmetric and self.vectors.device.type == 'cpu'

    def own_queries(self) -> Tensor:
        """The gallery's rows as :meth:`scores` wants queries, ``(N, D)`` float32."""
        rows = self.vectors[:self.count].float()
        return rows if self.scales is None else rows * self.scales[:self.count, None]

    def _filled(self, vectors: Tensor) -> Tensor:
        if not self.similarity.symmetric:
            return vectors[:self.count]
        want = -(-self.count // _ROW_MULTIPLE) * _ROW_MULTIPLE
        if len(vectors) >= want:
            return vectors[:want]
        return functional.pad(vectors, (0, 0, 0, want - len(vectors)))

    def tiles(self, num_queries: int, budget: int = TILE_BUDGET,
              whole_rows: bool = False) -> tuple[int, int]:
        """How many queries and gallery rows to score together, within ``budget`` scores.

        Args:
            whole_rows: every tile spans the gallery, whatever the budget, and is twice as large.
        """
        few = min(num_queries, _QUERY_ROWS)
        if whole_rows or not self.similarity.symmetric:
            fewest = _WHOLE_ROWS if budget >= TILE_BUDGET else 1
            rows = max(fewest, 2 * budget // self.count)
            return max(1, min(num_queries, rows)), len(self.vectors)
        rows = max(1, few)
        if rows <= _FEW:
            budget = min(budget, rows * _FEW_COLUMNS)
        if self.count * rows <= budget:
            return rows, len(self.vectors)
        return rows, max(_ROW_MULTIPLE, budget // rows // _ROW_MULTIPLE * _ROW_MULTIPLE)

    def scores(self, queries: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Similarities ``(B, stop - start)`` of prepared queries and the rows ``start:stop``.

        ``start`` and ``stop`` are those of :meth:`column_tiles`; the result ends at row N.
        """
        stop = len(self.vectors) if stop is None else stop
        last = min(stop, self.count)
        rows = self.vectors[start:stop]
        if self.centre is not None and self.squares is not None:
            if self.on_cpu:
                out = np.empty(len(queries) * len(rows), np.float32)
                return torch.from_numpy(self.score_into(out, queries.numpy(), start, stop))
            rows = self.vectors[start:last]
            return (0 - distances(queries, rows, self.centre, self.squares[start:last])).float()
        if self.similarity.kind == 'product':
            product = (queries @ rows.to(queries.dtype).T)[:, :last - start]
            if self.scales is not None:
                product = product * self.scales[start:last]
            return self.similarity.clipped(product)
        return _checked(self.similarity.function(queries, rows.to(queries.dtype)),
                        len(queries), self.count, self.similarity.name)

    def score_into(self, out: np.ndarray, queries: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The same on the CPU by NumPy, written into ``out``.

        NumPy's product is rounded alike whatever the number of queries and wherever a row stands
        in its tile, so that no figure depends on how the work is cut; but for a few queries, which
        a large gallery passes by one at a time: there the last bit may differ.

        Args:
            out: float32, at least ``B * (stop - start)`` long.
            queries: ``(B, D)`` float32, prepared.

        Returns:
            ``(B, stop - start)``, a part of ``out``; it ends at row N.
        """
        rows = self.vectors[start:stop]
        scores = out[:len(queries) * len(rows)].reshape(len(queries), len(rows))
        if self.centre is not None and self.squares is not None:
            self._distances_into(scores, queries, start, self.centre.numpy(), self.squares.numpy())
        elif len(queries) <= _FEW and rows.numel() > _CACHED:
            _one_by_one(scores, queries, rows.float().numpy())
        else:
            np.matmul(queries, rows.float().numpy().T, out=scores)
        scores = scores[:, :self.count - start]
        if self.scales is not None:
            scores *= self.scales[start:start + scores.shape[1]].numpy()
        return self.similarity.clipped(scores)

    def _distances_into(self, scores: np.ndarray, queries: np.ndarray, start: int,
                        centre: np.ndarray, squares: np.ndarray) -> None:
        """The same for a distance: so many rows at a time as stay in the cache in float64."""
        step = max(_ROW_MULTIPLE, _CACHED // 4 // max(len(queries), self.width))
        for first in range(0, scores.shape[1], step):
            out = scores[:, first:first + step]
            part = slice(start + first, start + first + out.shape[1])
            apart = distances(queries, self.vectors[part].float().numpy(), centre, squares[part])
            np.subtract(0, apart, out=out, casting='same_kind')

    def column_tiles(self, width: int) -> Iterator[tuple[int, int]]:
        """The ``(start, stop)`` of tiles of that many rows."""
        for start in range(0, self.count, width):
            yield start, min(start + width, len(self.vectors))


@dataclass(frozen=True)
class HalfRows:
    """A gallery's prepared rows in half precision; for a distance shifted, and scaled to a length
    of at most 1.

    Args:
        rows: ``(N, D)`` bfloat16 or float16.
        error: the length of the largest difference of a row from its rounding.
        length: the length of the longest row.
        centre: ``(D,)`` float64, what was subtracted, or None.
        scale: what the rows were multiplied by.
        halves: ``(N,)`` float32, half the squared lengths, or None.
    """

    rows: Tensor
    error: float
    length: float
    centre: Tensor | None = None
    scale: float = 1.0
    halves: Tensor | None = None

    @classmethod
    def of(cls, gallery: PreparedGallery) -> HalfRows:
        """Round a gallery's rows: to float16 on a GPU where they fit it, else to bfloat16."""
        rows, scale, halves = gallery.own_queries(), 1.0, None
        if gallery.centre is not None and gallery.squares is not None:
            squares = gallery.squares[:len(rows)]
            scale = 2.0 ** -math.frexp(math.sqrt(float(squares.max())))[1]
            rows, halves = _shifted(rows, gallery.centre, scale), (squares * scale ** 2 / 2).float()
        fits = rows.is_cuda and float(rows.abs().max()) < 1024
        half = rows.to(torch.float16 if fits else torch.bfloat16)
        error = (rows - half.float()).norm(dim=1).max()
        return cls(half, float(error), float(rows.norm(dim=1).max()), gallery.centre, scale, halves)

    def rounded(self, shifted: Tensor) -> Tensor:
        """Shifted queries ``(B, D)`` in half precision; the margins cover what is cut."""
        largest = torch.finfo(self.rows.dtype).max
        return shifted.clamp(-largest, largest).to(self.rows.dtype)

    def score_into(self, product: Tensor, out: Tensor, queries: Tensor, start: int,
                   stop: int) -> np.ndarray:
        """On the CPU the rounded scores of rounded queries ``(B, D)`` and the rows ``start:stop``.

        Args:
            product, out: buffers of that half precision and float32, at least
                ``B * (stop - start)`` long.

        Returns:
            ``(B, stop - start)`` float32, a part of ``out``; it ends at row N.
        """
        rows = self.rows[start:stop]
        shape, size = (len(queries), len(rows)), len(queries) * len(rows)
        torch.mm(queries, rows.T, out=product[:size].view(shape))
        scores = out[:size].view(shape).copy_(product[:size].view(shape))
        if self.halves is not None:  # q·g - |g|²/2 falls as the distance rises
            scores -= self.halves[start:stop]
        return scores.numpy()

    def shifted(self, queries: Tensor) -> Tensor:
        """Prepared queries ``(B, D)`` shifted and scaled as the rows are."""
        if self.centre is None:
            return queries
        return _shifted(queries, self.centre, self.scale)

    def margins(self, queries: Tensor, rounded: Tensor) -> Tensor:
        """For each query ``(B,)`` how far a product of rounded vectors is from the true one.

        ``|q·g - q'·g'| <= |q - q'| |g| + |q'| |g - g'|``, and what float32 sums lose.
        """
        apart = (queries - rounded.float()).norm(dim=1)
        sums = queries.shape[1] * 2.0 ** -23 * self.length
        return apart * self.length + rounded.float().norm(dim=1) * (self.error + sums)


@dataclass(frozen=True)
class RoughRows:
    """A gallery's rows such that products in float32 nearly rank by distance.

    The nearest row has the largest ``q·g - |g|²/2``: an inner product, where every row carries
    ``-|g|²/2`` behind it and every query a 1.

    Args:
        gallery: the shifted and scaled rows ``(N, D + 1)``, by inner product.
        centre, scale: of the shift.
        length: the length of the longest shifted row; at most 1.
    """

    gallery: PreparedGallery
    centre: Tensor
    scale: float
    length: float

    @classmethod
    def of(cls, gallery: PreparedGallery) -> RoughRows:
        """Shift and scale the rows of a gallery that ranks by distance."""
        assert gallery.centre is not None and gallery.squares is not None
        longest = math.sqrt(float(gallery.squares[:len(gallery)].max()))
        scale = 2.0 ** -math.frexp(longest)[1]
        rows = gallery.vectors.new_zeros(len(gallery.vectors), gallery.width + 1,
                                         dtype=torch.float32)
        for start in range(0, len(gallery), _CHECKED_ROWS):
            stop = min(start + _CHECKED_ROWS, len(gallery))
            part = (gallery.vectors[start:stop].double() - gallery.centre) * scale
            rows[start:stop, :-1] = part
            rows[start:stop, -1] = part.square().sum(dim=1) / -2
        return cls(PreparedGallery(rows, 'inner_product', prepared=True, count=len(gallery)),
                   gallery.centre, scale, longest * scale)

    def prepare(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``(B, D + 1)`` for the rows, and for each ``(B,)`` how far a score of the product
        may be from the true one, and from one that float32 cannot tell from it.

        A product of n numbers in float32 is off by at most n 2^-24 |q| |g|, and the rounding of
        its factors by as much as a few numbers more.
        """
        shifted = (queries.double() - self.centre) * self.scale
        lengths = torch.linalg.vector_norm(shifted, dim=1) + self.length
        margin = (queries.shape[1] + 16) * 2.0 ** -24 * lengths.square()
        beyond = lengths > 1e18  # of all rows together: nothing is said of such a query
        shifted[beyond], margin[beyond] = 0, torch.inf
        one = shifted.new_ones(len(shifted), 1)
        return torch.cat([shifted, one], dim=1).float(), margin


def _shifted(vectors: Tensor, centre: Tensor, scale: float) -> Tensor:
    """Vectors less the centre times the scale, rounded once to float32."""
    return torch.cat([((part.double() - centre) * scale).float()
                      for part in vectors.split(_CHECKED_ROWS)])


def as_prepared(gallery: Any, similarity: str | SimilarityFn | Similarity) -> PreparedGallery:
    """``gallery`` prepared: as it is, or from vectors ``(N, D)`` and a similarity.

    Raises:
        TypeError, ValueError: it holds no finite vectors, or none at all.
    """
    if isinstance(gallery, PreparedGallery):
        return gallery
    return PreparedGallery(as_vectors(gallery, 'gallery'), similarity)


def prepared_rows(vectors: Tensor, similarity: Similarity, name: str = 'embeddings') -> Tensor:
    """One side's vectors ``(N, D)`` as the similarity takes them: of length 1 for cosine.

    Raises:
        ValueError: a vector is too long for its scores to be written in float32.

    Example:
        >>> prepared_rows(torch.tensor([[3., 4.]]), resolve_similarity('cosine_similarity'))
        tensor([[0.6000, 0.8000]])
    """
    if similarity.kind != 'function' and not similarity.normalizes and len(vectors):
        _check_lengths(vectors, similarity, name)
    return similarity.prepare(vectors)


def checked_precision(precision: str, similarity: Similarity) -> str:
    """``precision`` as it is.

    Raises:
        ValueError: it is unknown, or ``half`` for a similarity that is no product.

    Example:
        >>> checked_precision('half', resolve_similarity('euclidean'))
        'half'
    """
    if precision not in PRECISIONS:
        raise ValueError(unknown_name('precision', precision, PRECISIONS))
    if precision == 'half' and not similarity.symmetric:
        raise ValueError(f'The similarity {similarity.name!r} is no product of vectors, so there '
                         "is no half precision for it: leave precision='half' out.")
    return precision


def _as_tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], Tensor):
        return torch.stack([value.detach() for value in values])
    try:
        array = np.asarray(values)
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise TypeError(f'{name} must be an array or tensor of floats (N, D), got '
                        f'{type(values).__name__} that is none: {error}') from error


def _check_finite(vectors: Tensor, name: str) -> None:
    if math.isfinite(float(vectors.sum())):  # a finite sum has no NaN and no infinity in it
        return
    for start in range(0, len(vectors), _CHECKED_ROWS):
        bad = ~torch.isfinite(vectors[start:start + _CHECKED_ROWS]).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0, 0])
            raise ValueError(f'{name} must be finite in float32, but row {row} holds NaN or '
                             'infinity: look for an image that the encoder cannot take, or a '
                             'diverged training.')


def _one_by_one(scores: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> None:
    """The product, at the speed of memory: a matrix product would first copy the rows."""
    step = max(_ROW_MULTIPLE, _CACHED // rows.shape[1] // _ROW_MULTIPLE * _ROW_MULTIPLE)
    for start in range(0, len(rows), step):
        part = rows[start:start + step]
        for query, out in zip(queries, scores[:, start:start + step], strict=True):
            np.dot(part, query, out=out)


def _check_lengths(vectors: Tensor, similarity: Similarity, name: str) -> None:
    """Refuse vectors whose scores could overflow, so that none is infinite or NaN."""
    lengths = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    longest = _LONGEST[similarity.kind]
    if float(lengths.max()) > longest:
        row = int(lengths.argmax())
        raise ValueError(f'{name}: row {row} is too long for float32 scores (its length is above '
                         f'{longest:.1g}): divide the vectors by a constant.')


def _checked(scores: Any, num_queries: int, num_rows: int, name: str) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f'The similarity {name!r} must return a tensor of floats, got {got}.')
    if scores.shape != (num_queries, num_rows):
        raise ValueError(f'The similarity {name!r} must map (Q, D), (N, D) to (Q, N): expected '
                         f'({num_queries}, {num_rows}), got {tuple(scores.shape)}.')
    scores = scores.detach().to(torch.float32)
    if not torch.isfinite(scores).all():
        raise ValueError(f'The similarity {name!r} returned NaN or infinity.')
    return scores.clone(memory_format=torch.contiguous_format)
