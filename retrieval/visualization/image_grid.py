"""A contact sheet: pictures in rows, each with a caption."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from . import drawing


def draw_image_grid(images: Sequence[Any], captions: Sequence[str] | None = None,
                    path: str | os.PathLike | None = None, columns: int = 8, cell: int = 128,
                    title: str = '') -> Image.Image:
    """Draw pictures in rows; they keep their aspect ratio.

    Args:
        images: arrays ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in RGB, paths, or Pillow
            images.
        captions: one for each picture; line breaks make several lines.
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
    if columns < 1 or cell < 16:
        raise ValueError(f'columns must be at least 1 and cell at least 16 pixels, got {columns} '
                         f'and {cell}.')
    lines = [caption.split('\n') for caption in captions or [''] * len(images)]
    if len(lines) != len(images):
        raise ValueError(f'There are {len(images)} pictures and {len(lines)} captions.')
    gap, face = max(4, cell // 16), drawing.font(max(9, cell // 10))
    line_height = int(face.size) + 4
    header = gap + (line_height + gap) * bool(title)
    step = cell + max(map(len, lines)) * line_height + gap
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new('RGB', (gap + columns * (cell + gap), header + rows * step),
                      drawing.BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((gap, gap), drawing.fitted(title, sheet.width - 2 * gap, face), fill=drawing.INK,
                 font=face)
    for position, (image, caption) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(position, columns)
        left, top = gap + column * (cell + gap), header + row * step
        sheet.paste(drawing.letterbox(image, cell), (left, top))
        for number, line in enumerate(caption):
            pen.text((left + cell / 2, top + cell + 2 + number * line_height),
                     drawing.fitted(line, cell, face), fill=drawing.INK, font=face, anchor='ma')
    if path is not None:
        drawing.save_picture(sheet, path)
    return sheet
