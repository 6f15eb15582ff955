"""Text on a picture: in any script that a font of the machine has, cut to fit, names told apart."""
from __future__ import annotations

import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from PIL import ImageDraw, ImageFont

_SEPARATORS = '/_- .'
_LATIN = 0x20, 0x7E  # DejaVu has all of them, so it need not be asked


class Face:
    """DejaVu Sans, which ships with matplotlib, and for what it lacks the machine's other fonts.

    Args:
        size: in pixels.
        bold: of DejaVu.

    Example:
        >>> Face(12).getlength('ii') < Face(12).getlength('WW')
        True
    """

    def __init__(self, size: int, bold: bool = False) -> None:
        self.size = size
        self.main = _dejavu('DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf')
        self.ascent = _opened(self.main, size).getmetrics()[0]

    def getlength(self, text: str) -> float:
        """How wide a text is, in pixels."""
        return sum(_opened(path, self.size).getlength(run) for path, run in self.runs(text))

    @lru_cache(maxsize=4096)  # noqa: B019 (faces are few, and kept)
    def advance(self, character: str) -> float:
        """How wide one character is, a blank too."""
        return _opened(_font_for(character, self.main, self.main), self.size).getlength(character)

    def write(self, pen: ImageDraw.ImageDraw, x: float, y: float, text: str,
              ink: tuple[int, int, int], centred: bool = False) -> None:
        """Write a line below ``y``, to the right of ``x`` or centred on it."""
        x -= self.getlength(text) / 2 if centred else 0
        for path, run in self.runs(text):
            font = _opened(path, self.size)
            pen.text((x, y + self.ascent), run, fill=ink, font=font, anchor='ls')
            x += font.getlength(run)

    def runs(self, text: str) -> list[tuple[str, str]]:
        """The text in pieces, each behind the file of the font that has its characters."""
        runs: list[tuple[str, str]] = []
        for character in drawable(text):
            last = runs[-1][0] if runs else self.main
            path = last if _joins(character) else _font_for(character, self.main, last)
            if runs and path == last:
                runs[-1] = last, runs[-1][1] + character
            else:
                runs.append((path, character))
        return runs


def drawable(text: Any) -> str:
    """Text as it can be drawn: on one line, composed, without what no font has a sign for.

    Example:
        >>> drawable('a\\nb\\udce9')
        'a b�'
    """
    line = unicodedata.normalize('NFC', ' '.join(str(text).split()))
    return ''.join('\ufffd' if unicodedata.category(one) in ('Cc', 'Cs') else one for one in line)


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> Face:
    """The face that everything is written in, ``size`` in pixels."""
    return Face(size, bold)


@contextmanager
def plot_fonts(texts: Sequence[str]) -> Iterator[None]:
    """Inside, matplotlib writes these texts in fonts that have their characters."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties, fontManager

    main = font(12).main
    families = ['DejaVu Sans']
    for path in dict.fromkeys(path for text in texts for path, _ in font(12).runs(text)):
        if path != main:
            fontManager.addfont(path)
            families.append(FontProperties(fname=path).get_name())
    with rc_context({'font.family': families}):
        yield


# Fonts of the machine ----------------------------------------------------------------------------


def _joins(character: str) -> bool:
    """True for what belongs to the character before it."""
    return unicodedata.category(character) in ('Mn', 'Me', 'Mc', 'Cf')


def _dejavu(name: str) -> str:
    """A font's file in the package matplotlib, which is not imported for it: that takes as long as
    the drawing.
    """
    spec = find_spec('matplotlib')
    if spec is None or not spec.origin:
        raise ImportError('Text is drawn in a font that comes with matplotlib: pip install '
                          'matplotlib')
    return os.path.join(os.path.dirname(spec.origin), 'mpl-data', 'fonts', 'ttf', name)


@lru_cache(maxsize=64)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=8)
def _characters(path: str) -> frozenset[int]:
    """The code points that a font has; none of one that cannot be read or has no outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        found = FT2Font(path)
        return frozenset(found.get_charmap()) if found.scalable else frozenset()
    except (RuntimeError, OSError, ValueError):
        return frozenset()


@lru_cache(maxsize=4096)
def _font_for(character: str, main: str, last: str) -> str:
    """The file of a font that has a character: ``main``, else ``last``, else the first that there
    is; ``main`` where none has it.
    """
    code = ord(character)
    if _LATIN[0] <= code <= _LATIN[1]:
        return main
    paths = (main, last) if code in _characters(main) else (last, *_by_page().get(code >> 8, ()))
    return next((path for path in paths if code in _characters(path)), main)


@lru_cache(maxsize=1)
def _by_page() -> dict[int, list[str]]:
    """The machine's fonts by the pages of 256 code points that they have something on. They are
    read once, when a character is met that DejaVu does not have.
    """
    pages: dict[int, list[str]] = {}
    for path in machine_fonts():
        for page in {code >> 8 for code in _characters(path)}:
            pages.setdefault(page, []).append(path)
    return pages


def machine_fonts() -> list[str]:
    """The files of the machine's fonts: upright ones without serifs first."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: str) -> tuple[bool, bool, str]:
        name = os.path.basename(path).lower()
        styled = any(word in name for word in ('bold', 'italic', 'oblique', 'black', 'light',
                                               'thin', 'condensed', 'mono', 'emoji', 'lastresort'))
        return styled, 'sans' not in name and 'gothic' not in name, path

    return sorted(findSystemFonts(), key=order)


# Fitting -----------------------------------------------------------------------------------------


def fitted(text: Any, width: float, face: Face) -> str:
    """``text`` on one line; where it is wider than ``width`` pixels, ``…`` stands for its middle.

    Example:
        >>> fitted('short', 100, font(12)), fitted('a long name.png', 70, font(12))
        ('short', 'a lo…e.png')
    """
    return wrapped(text, width, face, 1)[0]


def wrapped(text: Any, width: float, face: Face, most: int = 2) -> list[str]:
    """``text`` in lines of ``width`` pixels, at the most so many; ``…`` stands for what is left out
    of its middle, since file names differ at their ends.

    Example:
        >>> wrapped('holiday/by the sea/IMG_20240102_1.jpg', 100, font(12), 3)
        ['holiday/by the', 'sea/IMG_', '20240102_1.jpg']
    """
    line = drawable(text)
    lines = _broken(line, width, face)
    if len(lines) <= most:
        return lines

    def without_middle(left: int) -> list[str]:
        head = left // 2
        return _broken(f'{line[:head]}…{line[len(line) - left + head:]}', width, face)

    left = bisect_right(range(len(line)), most, key=lambda left: len(without_middle(left))) - 1
    return without_middle(left) if left >= 0 else ['']


def _broken(line: str, width: float, face: Face) -> list[str]:
    """A line in pieces that fit, behind separators where that leaves half a piece."""
    lines: list[str] = []
    start = 0
    while True:
        end, used = start, 0.0
        while end < len(line) and (used := used + face.advance(line[end])) <= width:
            end += 1
        if end == len(line):
            return [*lines, line[start:].strip(' ')]
        cut = 1 + max(line.rfind(mark, start, end) for mark in _SEPARATORS)
        end = cut if cut - start > (end - start) // 2 else max(end, start + 1)
        lines.append(line[start:end].strip(' '))
        start = end


# Names -------------------------------------------------------------------------------------------


def distinct_names(ids: Iterable[str], among: Iterable[str] = ()) -> dict[str, str]:
    """The shortest end of each path, whole parts of it, by which it differs from all others.

    Args:
        ids: the paths.
        among: others that they are to differ from too, such as those of the whole gallery.

    Example:
        >>> distinct_names(['/p/2019/1.jpg', '/p/2020/1.jpg', '/p/2020/2.jpg'])
        {'/p/2019/1.jpg': '2019/1.jpg', '/p/2020/1.jpg': '2020/1.jpg', '/p/2020/2.jpg': '2.jpg'}
    """
    names: dict[str, str] = {}
    ids = list(dict.fromkeys(ids))
    last = {name.rpartition('/')[2] for name in ids}
    alike = [name for name in map(str, among) if name.rpartition('/')[2] in last]
    open_ones = {name: [part for part in name.split('/') if part] for name in [*ids, *alike]}
    depth = 1
    while open_ones:
        ends: dict[str, list[str]] = {}
        for name, parts in open_ones.items():
            ends.setdefault('/'.join(parts[-depth:]), []).append(name)
        for end, those in ends.items():
            for name in those:
                if len(those) == 1 or depth >= len(open_ones[name]):
                    names[name] = end if len(those) == 1 else name
        open_ones = {name: parts for name, parts in open_ones.items() if name not in names}
        depth += 1
    return {name: names[name] for name in ids}
