"""Answers to a search as plain values: what was found for each image, and a drawing of it."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .image_files import find_images


def expand(paths: Sequence[str]) -> list[str]:
    """Image files as they are, and the images below folders, sorted.

    Raises:
        FileNotFoundError: there is no such image or folder.
        ValueError: a folder holds no image, or it is an address on the network.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ('b.png', 'a.jpg', 'notes.txt'):
        ...     (folder / name).touch()
        >>> [Path(path).name for path in expand([folder])]
        ['a.jpg', 'b.png']
    """
    images: list[str] = []
    for given in map(str, paths):
        if re.match('[a-z]+://', given, re.IGNORECASE):
            raise ValueError(f'{given!r} is an address on the network, and nothing is downloaded: '
                             'save the image as a file, as with `curl -LO ADDRESS`, and give that.')
        path = os.path.expanduser(given)
        if os.path.isdir(path):
            found = find_images(path)
            if not found:
                raise ValueError(f'The folder {path!r} holds no image.')
            images += found
        elif os.path.lexists(path):
            images.append(path)  # who opens it says what is wrong with it
        else:
            what = 'image' if Path(path).suffix and not path.endswith(os.sep) else 'image or folder'
            raise FileNotFoundError(f'There is no {what} {path!r} to search for: check the path.')
    return images


def described(query: str | None, rows: Sequence[int], scores: Sequence[float], gallery: Any,
              calibration: Any = None, threshold: float | None = None,
              matches: Sequence[Any] | None = None) -> dict[str, Any]:
    """What was found for a query, as a dict of plain values.

    Args:
        query: its identity.
        rows: of the gallery, best first.
        scores: the score of each.
        gallery: what they are rows of.
        calibration: a :class:`retrieval.MatchCalibration` for the query, or None.
        threshold: leaves lower scores out, in the place of the calibration's.
        matches: for each row where the query lies in its picture
            (:class:`retrieval.registration.Registration`), or None; None where that was not looked
            at.
    """
    results: list[dict[str, Any]] = []
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
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
        if matches is not None:
            result.update(placed(matches[place]))
        results.append(result)
    answer: dict[str, Any] = dict(query=query, results=results)
    if threshold is not None or calibration is not None:
        answer['match'] = bool(results)
    return answer


def placed(match: Any) -> dict[str, Any]:
    """Where a query lies in a result, as plain values; see :func:`described`.

    Example:
        >>> placed(None)['box'] is None
        True
    """
    if match is None:
        return dict(inliers=0, box=None, query_box=None, mirrored=None)
    return dict(inliers=match.inliers, box=[round(edge, 4) for edge in match.box],
                query_box=[round(edge, 4) for edge in match.own_box], mirrored=match.mirrored)


def draw(answers: Sequence[dict[str, Any]], datasets: Sequence[Any],
         folder: str | os.PathLike[str], ids: Sequence[str] = (), cell: int = 128) -> None:
    """Draw a picture of each query and its results, and note its file as ``picture``.

    Args:
        answers: as :func:`described` returns them; those with an error, and those whose results
            have no pictures, are passed over.
        datasets: where the pictures of queries and results are looked for.
        folder: is made where it is missing.
        ids: of the whole gallery, from which the names below the pictures are to differ.
        cell: the edge of a picture in pixels.
    """
    from .visualization import Pictures, draw_ranking_grid

    pictures = Pictures(datasets)
    for number, answer in enumerate(answers):
        if 'error' in answer:
            continue
        stem = re.sub(r'[^\w.-]+', '_', Path(answer['query']).stem)[:60]
        path = Path(folder) / f'{number:04d}_{stem}.png'
        rows = ranking_rows([answer], pictures, ids)
        if rows:
            draw_ranking_grid(rows, path, cell=cell, columns=max(1, len(answer['results'])))
            answer['picture'] = str(path)


def ranking_rows(answers: Sequence[dict[str, Any]], pictures: Any,
                 ids: Sequence[str] = ()) -> list[tuple[Any, list[Any]]]:
    """The rows of :func:`draw_ranking_grid` for some answers; none where no result has a picture,
    as of a gallery whose images are elsewhere.

    Below a picture stands its file, as far as it differs from the others and from those of the
    whole gallery (``ids``), and its label where the path does not hold it.
    """
    from .visualization import distinct_names

    answers = [answer for answer in answers if 'error' not in answer]
    names = distinct_names([name for answer in answers for name in
                            (answer['query'], *(hit['id'] for hit in answer['results']))], ids)
    rows, seen = [], 0
    for answer in answers:
        results = [(_boxed(pictures.of(hit['id']), hit.get('box')), hit['score'], None,
                    _caption(hit, names[hit['id']])) for hit in answer['results']]
        seen += sum(picture is not None for picture, *_ in results)
        nothing = '' if results else '\nno match'
        asked = pictures.of(answer.get('picture_of', answer['query']))
        rows.append(((asked, names[answer['query']] + nothing), results))
    return rows if seen or not any(results for _, results in rows) else []


def _boxed(picture: Any, box: Sequence[float] | None) -> Any:
    """The picture with a frame around the part in which the query was found."""
    if picture is None or box is None or box[2] * box[3] > 0.98:
        return picture
    from PIL import ImageDraw

    picture, (left, top, width, height) = picture.copy(), box
    wide, high = picture.size
    edges = (left * wide, top * high, (left + width) * wide, (top + height) * high)
    thick = max(2, round(max(picture.size) / 64))
    for colour, share in (('black', 1.5), ('yellow', 1)):
        ImageDraw.Draw(picture).rectangle(edges, outline=colour, width=round(share * thick))
    return picture


def _caption(hit: dict[str, Any], name: str) -> str:
    lines = [name]
    if hit['label'] and hit['label'] not in hit['id'].split('/'):
        lines.append(hit['label'])
    if 'probability' in hit:
        lines.append(f'p = {hit["probability"]:.3f}')
    return '\n'.join(lines)


def file_of(sample_id: str) -> str | None:
    """The file that an identity names, without a box behind it, where it is there."""
    for name in (sample_id, sample_id.rpartition('#')[0]):
        if name and Path(name).is_file():
            return name
    return None
