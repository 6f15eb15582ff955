"""From the typefaces that ship with matplotlib to outlines and small pictures of their characters.

FreeType, as matplotlib ships it, reads the outlines; matplotlib's Agg canvas fills them with
anti-aliasing. Nothing here knows of classes or of files that are written.
"""
from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import matplotlib
import numpy as np
from fontTools.agl import toUnicode
from matplotlib import ft2font
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform

# Those that every supported release of matplotlib has, so that the dataset is the same with each.
STYLES = ('', '-Bold', '-Oblique', '-BoldOblique')
SERIF_STYLES = ('', '-Bold', '-Italic', '-BoldItalic')
FAMILIES: dict[str, tuple[str, ...]] = {
    'DejaVu Sans': tuple(f'DejaVuSans{style}' for style in STYLES),
    'DejaVu Sans Mono': tuple(f'DejaVuSansMono{style}' for style in STYLES),
    'DejaVu Serif': tuple(f'DejaVuSerif{style}' for style in SERIF_STYLES),
    'STIX': ('STIXGeneral', 'STIXGeneralBol', 'STIXGeneralItalic', 'STIXGeneralBolIta'),
    'Computer Modern': ('cmr10', 'cmb10', 'cmss10', 'cmtt10', 'cmmi10', 'cmsy10'),
}

# TeX's fonts put their glyphs under the codes of TeX's own encodings, so there a character is read
# from the glyph's name, by the Adobe Glyph List, and by these where the list means another form.
TEX_NAMES = {'Delta': 'Δ', 'Omega': 'Ω', 'mu': 'μ', 'phi': 'ϕ', 'phi1': 'φ', 'epsilon1': 'ϵ',
             'rho1': 'ϱ', 'pi1': 'ϖ', 'kappa1': 'ϰ', 'heart': '♡', 'diamond': '♢', 'star': '⋆'}
# Slips of the fonts: these show another character, a neighbour or one without its accent.
WRONG_GLYPHS = {'DejaVuSerif-Bold': 'ᵀᵁᵂ', 'DejaVuSerif-Italic': 'Ῐ',
                'DejaVuSansMono-Oblique': 'ӋӌӶӷ', 'DejaVuSansMono-BoldOblique': '≯'}
INVISIBLE = ('Cc', 'Cf', 'Cn', 'Co', 'Cs', 'Zl', 'Zp', 'Zs')  # Unicode's general categories


def font_folder() -> FilePath:
    """Where matplotlib keeps its TrueType fonts."""
    return FilePath(matplotlib.get_data_path(), 'fonts', 'ttf')


def font_files() -> dict[str, FilePath]:
    """The file of every typeface by its stem, in the order of :data:`FAMILIES`.

    Raises:
        FileNotFoundError: this installation of matplotlib lacks one.
    """
    files = {stem: font_folder() / f'{stem}.ttf' for stems in FAMILIES.values() for stem in stems}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f'The fonts {", ".join(missing)} are not in {str(font_folder())!r}, where matplotlib '
            'keeps its own: install matplotlib again, from its wheel.')
    return files


@dataclass(frozen=True)
class Typeface:
    """One font: ``stem`` names its file, ``name`` includes the style, ``family`` spans styles."""

    stem: str
    name: str
    family: str


@dataclass(frozen=True)
class Glyph:
    """One character in one typeface.

    Args:
        character: what it shows.
        typeface: the stem of its typeface.
        vertices: the outline's points ``(V, 2)`` float64, in font units, y upwards.
        codes: what each point is to its path, ``(V,)`` uint8, as ``matplotlib.path.Path`` has it.
    """

    character: str
    typeface: str
    vertices: np.ndarray
    codes: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower left and the upper right corner, ``(2,)`` each."""
        drawn = self.vertices[self.codes != Path.CLOSEPOLY]  # whose vertex means nothing
        return drawn.min(axis=0), drawn.max(axis=0)

    def shape_key(self) -> bytes:
        """Equal for outlines that differ by place and size alone, which a picture does not show."""
        low, high = self.bounds()
        drawn = self.vertices[self.codes != Path.CLOSEPOLY]
        scaled = np.rint((drawn - low) * (512 / (high - low).max()))
        return scaled.astype(np.int16).tobytes() + self.codes.tobytes()


def typefaces() -> list[Typeface]:
    """All typefaces, in the order of :func:`font_files`."""
    files = font_files()
    return [Typeface(stem, _full_name(ft2font.FT2Font(str(files[stem]))), family)
            for family, stems in FAMILIES.items() for stem in stems]


def _full_name(font: Any) -> str:
    plain = font.style_name in ('Book', 'Regular')
    return font.family_name if plain else f'{font.family_name} {font.style_name}'


def read_glyphs(stem: str) -> Iterator[Glyph]:
    """Every visible character of a typeface, by rising code in its font."""
    font: Any = ft2font.FT2Font(str(font_files()[stem]))
    for character, index in _characters(font, stem).items():
        font.load_glyph(index, flags=_unscaled())
        vertices, codes = font.get_path()
        glyph = Glyph(character, stem, np.asarray(vertices), np.asarray(codes))
        if len(vertices) and (np.subtract(*glyph.bounds()[::-1]) > 0).any():
            yield glyph


def _unscaled() -> Any:
    """Load flags for outlines in font units: no scaling, and no transformation either, since
    older releases stretch glyphs sideways for hinting."""
    names = ('NO_SCALE', 'IGNORE_TRANSFORM')
    if hasattr(ft2font, 'LoadFlags'):
        no_scale, ignore_transform = (getattr(ft2font.LoadFlags, name) for name in names)
    else:  # before matplotlib 3.10
        no_scale, ignore_transform = (getattr(ft2font, f'LOAD_{name}') for name in names)
    return no_scale | ignore_transform


def _characters(font: Any, stem: str) -> dict[str, int]:
    """The glyph of every visible character; where several have one, the first counts."""
    found: dict[str, int] = {}
    for code, index in sorted(font.get_charmap().items()):
        named: str | None = chr(code)
        if stem in FAMILIES['Computer Modern']:
            named = _tex_character(font.get_glyph_name(index), stem)
        if not index or named is None or named in WRONG_GLYPHS.get(stem, ''):
            continue
        if unicodedata.category(named) not in INVISIBLE:
            found.setdefault(named, index)
    return found


def _tex_character(glyph_name: str, stem: str) -> str | None:
    if stem == 'cmsy10' and len(glyph_name) == 1:
        return None  # calligraphic capitals, which are characters of their own
    named = TEX_NAMES.get(glyph_name) or toUnicode(glyph_name)
    return named if len(named) == 1 else None


class Canvas:
    """Draws outlines as white pictures on black.

    Args:
        size: the edge of the square picture, in pixels.
        margin: what stays black on the side where the character is longest, in pixels.
    """

    def __init__(self, size: int = 64, margin: int = 4) -> None:
        self.size = size
        self.margin = margin
        self._agg = RendererAgg(size, size, 72)
        self._context = self._agg.new_gc()
        self._context.set_linewidth(0)
        self._context.set_snap(False)  # else straight outlines move to whole pixels

    def draw(self, glyph: Glyph) -> np.ndarray:
        """The picture ``(size, size)`` uint8, 0 to 255: scaled to fit with its proportions kept,
        centred, and anti-aliased."""
        low, high = glyph.bounds()
        scale = (self.size - 2 * self.margin) / (high - low).max()
        points = (glyph.vertices - (low + high) / 2) * scale + self.size / 2
        self._agg.clear()
        self._agg.draw_path(self._context, Path(points, glyph.codes), IdentityTransform(),
                            (1., 1., 1.))
        return np.array(self._agg.buffer_rgba())[..., 3]
