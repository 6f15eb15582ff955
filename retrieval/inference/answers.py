"""What an inferencer says of an image: results as plain values, and pictures of them."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation import MatchCalibration
from ..structures import sample_id_of
from .prototypes import file_of


def checked_topk(topk: Any) -> int:
    """``topk`` as it is. Raises ValueError where it is below 1."""
    if topk < 1:
        raise ValueError(f'topk must be at least 1, got {topk}.')
    return topk


def as_calibration(calibration: Any, model: Any) -> MatchCalibration | None:
    """A calibration, from its file where a path is given.

    Raises:
        ValueError: it was made for another similarity than the model's.
        TypeError: it is something else.
    """
    if calibration is None:
        return None
    if isinstance(calibration, (str, os.PathLike)):
        calibration = MatchCalibration.load(calibration)
    if not isinstance(calibration, MatchCalibration):
        raise TypeError('calibration must be a MatchCalibration or its file, got '
                        f'{type(calibration).__name__}.')
    own = getattr(getattr(model, '_similarity', None), 'name', None)
    if own is not None and own != calibration.similarity:
        raise ValueError(f'The calibration is of the similarity {calibration.similarity!r}, the '
                         f'model searches by {own!r}: calibrate with '
                         f'similarity={own!r}.')
    return calibration


def described(sample: Any, gallery: Any, topk: int | None,
              calibration: MatchCalibration | None, threshold: float | None) -> dict[str, Any]:
    """The results of a data sample as a dict of plain values."""
    found = zip(sample.pred_label.tolist()[:topk], sample.pred_score.tolist(), strict=False)
    results: list[dict[str, Any]] = []
    for row, score in found:
        label, name = gallery.label_name(row), gallery.ids[row]
        bar = threshold
        if bar is None and calibration is not None:
            bar = calibration.threshold_of(label)
        if bar is not None and score < bar:
            continue
        result = dict(rank=len(results) + 1, score=round(score, 6), row=row, id=name, label=label,
                      path=file_of(name), metadata=gallery.describe(row))
        if calibration is not None and calibration.method is not None:
            result['probability'] = round(calibration.probability(score), 6)
        results.append(result)
    answer: dict[str, Any] = dict(query=sample_id_of(sample), results=results)
    if threshold is not None or calibration is not None:
        answer['match'] = bool(results)
    return answer


def draw(answers: Sequence[dict[str, Any]], datasets: Sequence[Any],
         folder: str | os.PathLike, cell: int = 128) -> None:
    """Draw a picture of each query and its results, and note its file as ``picture``.

    Args:
        answers: as :func:`described` returns them; those with an error are passed over.
        datasets: where the pictures of queries and results are looked for.
        folder: is made where it is missing.
        cell: the edge of a picture in pixels.
    """
    from ..visualization import Pictures, draw_ranking_grid

    pictures = Pictures(datasets)
    for number, answer in enumerate(answers):
        if 'error' in answer:
            continue
        stem = re.sub(r'[^\w.-]+', '_', Path(answer['query']).stem)[:60]
        path = Path(folder) / f'{number:04d}_{stem}.png'
        draw_ranking_grid([ranking_row(answer, pictures)], path, cell=cell,
                          columns=max(1, len(answer['results'])))
        answer['picture'] = str(path)


def ranking_row(answer: dict[str, Any], pictures: Any) -> tuple[Any, list]:
    """What :func:`draw_ranking_grid` draws for one answer."""
    nothing = '' if answer['results'] else '\nno match'
    query = (pictures.of(answer['query']), Path(answer['query']).name + nothing)
    return query, [(pictures.of(hit['id']), hit['score'], None, _caption(hit))
                   for hit in answer['results']]


def _caption(hit: dict[str, Any]) -> str:
    name = hit['label'] or Path(hit['id']).name
    return f'{name}\np = {hit["probability"]:.3f}' if 'probability' in hit else name
