"""Marks of right and wrong results as pairs of embeddings, and the projection that they train."""
from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..files import kind_of_file
from ..image_io import read_image
from ..ranking.threads import single_threaded_blas
from .pictures import Pictures
from .service import cut

HEADER = ['query', 'result', 'right', 'time']
FEWEST = 8  # marks, right and wrong together
FOLDS = 4
_RANK, _STEPS, _RATE, _DECAY = 32, 150, 0.01, 0.05
_SCALE = 10.0  # of a similarity, in the loss


class Mark(NamedTuple):
    """A mark: a query as JSON text, the id of the result, and whether it is right."""

    query: str
    result: str
    right: bool


def read_marks(path: str | os.PathLike[str]) -> list[Mark]:
    """The marks of a ``marks.csv`` that the server wrote; the last one of each pair counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table of marks.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), 'marks.csv')
        >>> _ = path.write_text('query,result,right,time\\n"{""id"": ""a""}",b,1,0\\n')
        >>> read_marks(path)
        [Mark(query='{"id": "a"}', result='b', right=True)]
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There are no marks {str(path)!r}: they are the marks.csv in the '
                                'folder that the server keeps, such as '
                                'FOLDER/.retrieval/default.serve/marks.csv.')
    found: dict[tuple[str, str], bool] = {}
    try:
        with open(path, newline='', encoding='utf-8', errors='surrogateescape') as file:
            lines = csv.DictReader(file)
            if not set(HEADER[:3]) <= set(lines.fieldnames or ()):
                raise ValueError(f'its columns are not {", ".join(HEADER)}')
            for line in lines:
                # a line that a kill cut off is none
                if line.get('right') in ('0', '1') and _is_query(line['query']):
                    found[line['query'], line['result']] = line['right'] == '1'
    except (ValueError, csv.Error) as error:
        raise ValueError(f'{str(path)!r} holds no marks that can be read: it seems to be '
                         f'{kind_of_file(path)} ({error}). Give a marks.csv of '
                         '`retrieval serve`.') from error
    return [Mark(*pair, right) for pair, right in found.items()]


def _is_query(text: str) -> bool:
    try:
        query = json.loads(text)
    except ValueError:
        return False
    return isinstance(query, dict) and bool({'id', 'upload'} & set(query))


@dataclass
class MarkedPairs:
    """Marks whose pictures are there, as pairs of embeddings.

    Args:
        marks: of these pairs.
        queries, results: ``(n, D)`` float32, at length 1.
        right: ``(n,)`` float32, 1 or 0.
        gone: how many marks are left out, since a picture of theirs is not there any more.
    """

    marks: list[Mark]
    queries: Tensor
    results: Tensor
    right: Tensor
    gone: int = 0

    @property
    def scores(self) -> Tensor:
        """The cosine similarity of each pair, ``(n,)``."""
        return (self.queries * self.results).sum(1)

    def check(self, fewest: int = FEWEST) -> None:
        """Raise ValueError where they are too few to learn from, or of one kind alone."""
        right = int(self.right.sum())
        if len(self.marks) < fewest or not 0 < right < len(self.marks):
            lost = f' ({self.gone} more are of pictures that are gone)' if self.gone else ''
            raise ValueError(f'At least {fewest} marks are wanted, some right and some wrong; '
                             f'there are {right} right and {len(self.marks) - right} wrong{lost}.')


def marked_pairs(marks: Sequence[Mark], embeddings: Tensor, ids: Sequence[str],
                 rows: Mapping[str, int], pictures: Pictures,
                 encode: Callable[[Any], Tensor]) -> MarkedPairs:
    """The embeddings of what was marked.

    Args:
        marks: see :func:`read_marks`.
        embeddings: ``(N, D)``, those of the gallery.
        ids: those of the gallery, ``(N,)``.
        rows: the row of each id as the server shows it, see :func:`shown_name`.
        pictures: of the ids, and in its folder those that were sent and marked.
        encode: the embedding ``(D,)`` of a picture, a file or an array, for queries that are no
            whole picture of the gallery.

    Example:
        >>> import tempfile
        >>> marks = [Mark('{"id": "a"}', 'b', True), Mark('{"id": "a"}', 'x', False)]
        >>> pairs = marked_pairs(marks, torch.eye(2), 'ab', dict(a=0, b=1),
        ...                      Pictures(Path(tempfile.mkdtemp()), []), encode=torch.tensor)
        >>> pairs.results.tolist(), pairs.gone
        ([[0.0, 1.0]], 1)
    """
    memory: dict[str, Tensor] = {}

    def embedded(query: str) -> Tensor:
        kept = json.loads(query)
        if 'upload' in kept:
            path = str(pictures.folder / 'marked' / os.path.basename(kept['upload']))
            return encode(cut(read_image(path), kept['box']) if 'box' in kept else path)
        row = rows[kept['id']]
        return encode(cut(pictures.read(ids[row]), kept['box'])) if 'box' in kept \
            else embeddings[row]

    for query in {mark.query: None for mark in marks if mark.result in rows}:
        with suppress(OSError, LookupError):  # its picture is gone
            memory[query] = normalize(embedded(query).float().cpu(), dim=0)
    kept = [mark for mark in marks
            if mark.result in rows and mark.query in memory]
    empty = torch.zeros(0, embeddings.shape[1])
    return MarkedPairs(
        kept, torch.stack([memory[mark.query] for mark in kept]) if kept else empty,
        normalize(embeddings[[rows[mark.result] for mark in kept]].float().cpu()),
        torch.tensor([float(mark.right) for mark in kept]), len(marks) - len(kept))


class HeldOut(NamedTuple):
    """The scores of marks without a projection, and with one that did not see them."""

    before: Tensor
    after: Tensor
    ordered_before: float | None
    ordered_after: float | None


def held_out(pairs: MarkedPairs, step: Callable[[], object] = lambda: None) -> HeldOut:
    """What a training does to marks that it has not seen: the queries are split into four parts
    (few queries: the marks), and each part is held out once.

    ``ordered_before`` and ``ordered_after`` are the share of pairs of a right and a wrong held-out
    result that their similarities order rightly; None where no part has both.

    Args:
        pairs: with both kinds.
        step: is called after each of the four trainings.
    """
    names = sorted({mark.query for mark in pairs.marks})
    by_query = len(names) >= 2 * FOLDS
    fold = torch.tensor([(names.index(mark.query) if by_query else place) % FOLDS
                         for place, mark in enumerate(pairs.marks)])
    queries, results, right = pairs.queries, pairs.results, pairs.right
    before = pairs.scores
    after = before.clone()
    for number in range(FOLDS):
        held = fold == number
        if held.any() and 0 < right[~held].sum() < len(right[~held]):
            made = train_projection(queries[~held], results[~held], right[~held])
            after[held] = projected_scores(made, queries[held], results[held])
        step()
    return HeldOut(before, after, _ordered(before, right, fold), _ordered(after, right, fold))


def train_projection(queries: Tensor, results: Tensor, right: Tensor) -> Tensor:
    """A projection ``(D, D)`` after which right pairs are similar and wrong ones are not.

    The identity and a correction of low rank, which is held small: a few marks must not turn
    everything over. The level from which pairs count as similar is learned too.

    Args:
        queries, results: ``(n, D)`` float32, the pairs, at length 1.
        right: ``(n,)`` of the same dtype, 1 or 0.

    Example:
        >>> queries, results = torch.eye(2)[[0, 0]], torch.tensor([[.6, .8], [.8, .6]])
        >>> made = train_projection(queries, results, torch.tensor([1., 0.]))
        >>> found = projected_scores(made, queries, results)
        >>> bool(found[0] - found[1] > -0.2)
        True
    """
    generator = torch.Generator().manual_seed(0)
    width = queries.shape[1]
    rank = min(_RANK, width)
    # by hand: torch would share these small products out to threads that wait for each other, and
    # bring a compiler with its Adam, each for seconds
    one, other, wanted = (side.cpu().numpy() for side in (queries, results, right))
    down = (torch.randn(width, rank, generator=generator) / width ** 0.5).numpy().astype(one.dtype)
    up = np.zeros((rank, width), one.dtype)
    level = np.array(np.median((one * other).sum(1)), one.dtype)
    share = wanted.mean()
    weight = np.where(wanted > 0, 0.5 / share, 0.5 / (1 - share)) / len(wanted)
    moments = [(np.zeros_like(part), np.zeros_like(part)) for part in (down, up, level)]
    with single_threaded_blas():
        for step in range(1, _STEPS + 1):
            low, low_other = one @ down, other @ down
            x, size = _unit(one + low @ up)
            y, other_size = _unit(other + low_other @ up)
            score = (x * y).sum(1)
            # of the cross-entropy; then of the scores' two sides
            slope = _SCALE * weight * (1 / (1 + np.exp(_SCALE * (level - score))) - wanted)
            to_x = (slope / size)[:, None] * (y - score[:, None] * x)
            to_y = (slope / other_size)[:, None] * (x - score[:, None] * y)
            slopes = (one.T @ (to_x @ up.T) + other.T @ (to_y @ up.T)
                      + 2 * _DECAY * down @ (up @ up.T),  # of the correction's squared norm
                      low.T @ to_x + low_other.T @ to_y + 2 * _DECAY * (down.T @ down) @ up,
                      -slope.sum())
            for part, slope, (first, second) in zip((down, up, level), slopes, moments,
                                                    strict=True):  # Adam (Kingma & Ba, 2015)
                first += 0.1 * (slope - first)
                second += 0.001 * (slope ** 2 - second)
                part -= _RATE * (first / (1 - 0.9 ** step)) / (
                    np.sqrt(second / (1 - 0.999 ** step)) + 1e-8)
        return torch.from_numpy(np.eye(width, dtype=one.dtype) + down @ up)


def _unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows at length 1, and how long they were."""
    size = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    return rows / size[:, None], size


def projected_scores(projection: Tensor, queries: Tensor, results: Tensor) -> Tensor:
    """The cosine similarity of pairs after a projection, ``(n,)``.

    Example:
        >>> projected_scores(torch.eye(2), torch.eye(2)[:1], torch.tensor([[.6, .8]])).tolist()
        [0.6000000238418579]
    """
    return (normalize(queries @ projection) * normalize(results @ projection)).sum(1)


def _ordered(scores: Tensor, right: Tensor, fold: Tensor) -> float | None:
    """The share of right and wrong pairs of one fold that their scores order rightly."""
    shares = []
    for number in fold.unique().tolist():
        own = fold == number
        good, bad = scores[own & (right > 0)], scores[own & (right == 0)]
        if len(good) and len(bad):
            shares.append(np.mean((good[:, None] > bad).numpy()
                                  + 0.5 * (good[:, None] == bad).numpy()))
    return round(float(np.mean(shares)), 4) if shares else None
