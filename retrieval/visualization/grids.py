"""Grids of pictures: contact sheets, and search results, a query a row, right or wrong."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from ..checks import whole_number
from . import drawing
from .text import Face, fitted, font, wrapped


def draw_image_grid(images: Sequence[Any], captions: Sequence[str] | None = None,
                    path: str | os.PathLike[str] | None = None, columns: int = 8, cell: int = 128,
                    title: str = '') -> Image.Image:
    """Draw pictures in rows; they keep their aspect ratio.

    Args:
        images: arrays ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in RGB, paths, or Pillow
            images.
        captions: one for each picture; line breaks make several lines, and a line that is too
            long becomes two.
        path: where to write the sheet, or None.
        columns: pictures in a row.
        cell: the edge of a picture in pixels.
        title: a line above all.

    Raises:
        ValueError: there are no pictures, another number of captions, or ``columns`` or ``cell`` is
            too small.
    """
    if not len(images):
        raise ValueError('A contact sheet needs at least one picture.')
    whole_number('columns', columns)
    whole_number('cell', cell, 16)
    if captions is not None and len(captions) != len(images):
        raise ValueError(f'There are {len(images)} pictures and {len(captions)} captions.')
    gap, face = max(4, cell // 16), font(max(9, cell // 10))
    lines = [_lines(caption, cell, face) for caption in captions or [''] * len(images)]
    line_height = face.size + 4
    header = gap + (line_height + gap) * bool(title)
    step = cell + max(1, *map(len, lines)) * line_height + gap
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new('RGB', (gap + columns * (cell + gap), header + rows * step),
                      drawing.BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    if title:
        face.write(pen, gap, gap, fitted(title, sheet.width - 2 * gap, face), drawing.INK)
    for position, (image, caption) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(position, columns)
        left, top = gap + column * (cell + gap), header + row * step
        sheet.paste(drawing.letterbox(image, cell), (left, top))
        for number, line in enumerate(caption):
            face.write(pen, left + cell / 2, top + cell + 2 + number * line_height, line,
                       drawing.INK, centred=True)
    if path is not None:
        drawing.save_picture(sheet, path)
    return sheet


RIGHT = (22, 150, 74)
WRONG = (208, 44, 44)
UNKNOWN = (165, 165, 165)


class RankedQuery(NamedTuple):
    """A query: its picture, and what stands below it."""

    image: Any
    title: str = ''


class RankedResult(NamedTuple):
    """A result: its picture, similarity, whether it is relevant, and what stands below the score.

    A picture is an array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in RGB, a path, a Pillow
    image, or None where there is none to show. ``correct`` is None where nobody knows. Line breaks
    in the caption make several lines, and a line that is too long becomes two.
    """

    image: Any
    score: float | None = None
    correct: bool | None = None
    caption: str = ''


Row = tuple[RankedQuery, list[RankedResult]]


def _lines(text: str, width: int, face: Face) -> list[str]:
    """The lines that a text takes, none where there is no text."""
    return [piece for line in text.split('\n') for piece in wrapped(line, width, face)] \
        if text else []


class _Layout:
    """Where things stand, in pixels."""

    def __init__(self, rows: list[Row], cell: int) -> None:
        self.cell = cell
        self.frame = max(2, cell // 24)
        self.gap = max(4, cell // 12)
        self.face = font(max(9, cell // 8))
        self.bold = font(max(9, cell // 8), bold=True)
        self.line = self.face.size + 4
        self.lines = max([1, *(self.lines_of(query.title) for query, _ in rows), *(
            1 + self.lines_of(hit.caption) for _, results in rows for hit in results)])
        self.columns = max([1, *(len(results) for _, results in rows)])
        self.header = self.line + self.gap
        self.row = cell + self.lines * self.line + self.gap
        self.separator = 2 * self.gap + cell + self.gap // 2
        self.width = self.left(self.columns) + self.gap
        self.height = self.gap + self.header + len(rows) * self.row

    def lines_of(self, text: str) -> int:
        """How many lines a text takes."""
        return len(_lines(text, self.cell, self.face))

    def left(self, column: int) -> int:
        """The left edge of a result."""
        return self.separator + self.gap + self.gap // 2 + column * (self.cell + self.gap)

    def top(self, row: int) -> int:
        """The upper edge of a row's pictures."""
        return self.gap + self.header + row * self.row


def draw_ranking_grid(rows: Sequence[tuple[Any, Sequence[Any]]],
                      path: str | os.PathLike[str] | None = None, columns: int = 10,
                      cell: int = 96) -> Image.Image:
    """Draw queries at the left and their results to the right, best first.

    Relevant results have a green frame and a tick, others a red frame and a cross, those of which
    nobody knows a grey frame. Scores stand below. Pictures keep their aspect ratio.

    Args:
        rows: for each query ``((image, title), results)``, its results best first as
            ``(image, score, correct, caption)``; see :class:`RankedQuery` and
            :class:`RankedResult`. What is left out at the end of these is empty.
        path: where to write the picture, or None.
        columns: how many results of each query are shown at most.
        cell: the edge of a picture in pixels.

    Raises:
        ValueError: there are no rows, or ``columns`` or ``cell`` is too small.
    """
    if not rows:
        raise ValueError('A ranking grid needs at least one query.')
    whole_number('columns', columns)
    whole_number('cell', cell, 16)
    named = [(RankedQuery(*query), [RankedResult(*result) for result in results[:columns]])
             for query, results in rows]
    layout = _Layout(named, cell)
    sheet = Image.new('RGB', (layout.width, layout.height), drawing.BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    _draw_header(pen, layout)
    for number, (query, results) in enumerate(named):
        top = layout.top(number)
        sheet.paste(drawing.letterbox(query.image, cell), (layout.gap, top))
        _write(pen, layout, layout.gap, top + cell, query.title, drawing.INK)
        for column, result in enumerate(results):
            _draw_result(sheet, pen, layout, layout.left(column), top, result)
    if path is not None:
        drawing.save_picture(sheet, path)
    return sheet


def _write(pen: ImageDraw.ImageDraw, layout: _Layout, left: int, top: int, text: str,
           ink: tuple[int, int, int], bold: bool = False) -> None:
    """Lines of text, centred on a cell."""
    face = layout.bold if bold else layout.face
    for number, line in enumerate(_lines(text, layout.cell, face)):
        face.write(pen, left + layout.cell / 2, top + 2 + number * layout.line, line, ink,
                   centred=True)


def _draw_header(pen: ImageDraw.ImageDraw, layout: _Layout) -> None:
    _write(pen, layout, layout.gap, layout.gap, 'query', drawing.INK, bold=True)
    for column in range(layout.columns):
        _write(pen, layout, layout.left(column), layout.gap, str(column + 1), drawing.PALE_INK)
    line = layout.separator
    pen.line([(line, layout.gap), (line, layout.height - layout.gap)], fill=drawing.LINE, width=2)


def _draw_result(sheet: Image.Image, pen: ImageDraw.ImageDraw, layout: _Layout, left: int, top: int,
                 result: RankedResult) -> None:
    colour, mark = {None: (UNKNOWN, ''), True: (RIGHT, '✓ '), False: (WRONG, '✗ ')}[
        None if result.correct is None else bool(result.correct)]
    edge, frame = layout.cell, layout.frame
    pen.rectangle([left, top, left + edge - 1, top + edge - 1], fill=colour)
    sheet.paste(drawing.letterbox(result.image, edge - 2 * frame), (left + frame, top + frame))
    score = '' if result.score is None else f'{float(result.score):.3f}'
    ink = drawing.INK if result.correct is None else colour
    _write(pen, layout, left, top + edge, mark + score, ink)
    _write(pen, layout, left, top + edge + layout.line, result.caption, drawing.PALE_INK)
