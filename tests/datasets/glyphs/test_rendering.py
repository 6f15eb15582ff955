import numpy as np
import pytest
from matplotlib.path import Path
from PIL import Image, ImageFont

from retrieval.datasets.glyphs import rendering as glyph_rendering
from retrieval.datasets.glyphs.rendering import Canvas, Glyph, font_files, read_glyphs, typefaces


@pytest.fixture(scope='module')
def glyphs():
    """The glyphs of three typefaces, by typeface and character."""
    return {stem: {glyph.character: glyph for glyph in read_glyphs(stem)}
            for stem in ('DejaVuSerif', 'STIXGeneralItalic', 'cmr10')}


def rectangle(width, height, left=0., bottom=0.):
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]) * [width, height]
    vertices = np.vstack([corners + [left, bottom], [[-999, -999]]])  # the last one means nothing
    codes = np.array([Path.MOVETO, *[Path.LINETO] * 4, Path.CLOSEPOLY], np.uint8)
    return Glyph('x', 'toy', vertices, codes)


def by_pillow(path, text, size=64, margin=4):
    """A character as Pillow's FreeType draws it large, shrunk and centred."""
    mask = ImageFont.truetype(str(path), 600).getmask(text, 'L')
    ink = Image.frombytes('L', mask.size, bytes(mask))
    ink = ink.crop(ink.getbbox())
    scale = (size - 2 * margin) / max(ink.size)
    half = size / 2 / scale
    box = np.array([ink.width / 2 - half, ink.height / 2 - half])
    framed = Image.new('L', (round(2 * half),) * 2)
    framed.paste(ink, tuple(np.rint(-box).astype(int)))
    return np.asarray(framed.resize((size, size), Image.Resampling.BOX))


@pytest.mark.parametrize('text', 'Ag&§ЖΩ')
@pytest.mark.parametrize('stem', ['DejaVuSerif', 'STIXGeneralItalic'])
def test_draws_what_freetype_draws(glyphs, stem, text):
    drawn = Canvas().draw(glyphs[stem][text]).astype(float)
    expected = by_pillow(font_files()[stem], text).astype(float)
    assert np.abs(drawn - expected).mean() < 3  # of 255: the large one is hinted
    assert np.corrcoef(drawn.ravel(), expected.ravel())[0, 1] > 0.99


def test_fits_keeps_proportions_and_is_centred():
    picture = Canvas().draw(rectangle(1000, 250, left=77, bottom=-400))
    assert picture.shape == (64, 64) and picture.dtype == np.uint8
    expected = np.zeros((64, 64), np.uint8)
    expected[25:39, 4:60] = 255  # 56 x 14 pixels
    assert np.array_equal(picture, expected)
    small = Canvas(size=10, margin=1).draw(rectangle(2, 8))
    assert small[1:9, 4:6].min() == 255 and small.sum() == 16 * 255


def test_a_picture_shows_nothing_of_the_one_before():
    canvas = Canvas()
    alone = canvas.draw(rectangle(1, 8))
    canvas.draw(rectangle(1, 1))
    assert np.array_equal(canvas.draw(rectangle(1, 8)), alone)


def test_edges_are_smooth(glyphs):
    picture = Canvas().draw(glyphs['cmr10']['O'])
    assert len(np.unique(picture)) > 50
    half = Canvas(size=8, margin=0).draw(rectangle(8, 7))  # covers the outer rows by one half
    assert abs(int(half[0, 4]) - 128) <= 1 and half[1:7].min() == 255


def test_counters_stay_open(glyphs):
    assert Canvas().draw(glyphs['DejaVuSerif']['O'])[32, 32] == 0


def test_same_shape_whatever_place_and_size():
    key = rectangle(10, 30).shape_key()
    assert rectangle(10, 30, 5, -7).shape_key() == key == rectangle(20, 60).shape_key()
    assert rectangle(30, 10).shape_key() != key != rectangle(11, 30).shape_key()


def test_latin_greek_and_cyrillic_a_have_one_shape(glyphs):
    serif = glyphs['DejaVuSerif']
    assert serif['A'].shape_key() == serif['Α'].shape_key() == serif['А'].shape_key()
    assert serif['A'].shape_key() != serif['B'].shape_key()


def test_typefaces_are_named_with_their_style():
    faces = {face.stem: face for face in typefaces()}
    assert len(faces) == 22 and len({face.family for face in faces.values()}) == 5
    assert faces['DejaVuSansMono-BoldOblique'].name == 'DejaVu Sans Mono Bold Oblique'
    assert faces['DejaVuSansMono-BoldOblique'].family == 'DejaVu Sans Mono'
    assert faces['DejaVuSans'].name == 'DejaVu Sans'
    assert len({face.name for face in faces.values()}) == 22


def test_characters_of_tex_fonts_are_read_from_names(glyphs):
    roman = glyphs['cmr10']
    assert {'Γ', 'Δ', 'Ω', 'ß', '¡', 'ﬁ', '”', 'é'} - set(roman) == {'é'}
    assert '<' not in roman  # where ASCII has it, there stands ¡
    # the Greek capital looks like that of a Unicode font, not like the ¡ of its code
    pictures = [Canvas().draw(glyph).astype(float).ravel() for glyph in (
        roman['Γ'], glyphs['DejaVuSerif']['Γ'], glyphs['DejaVuSerif']['¡'])]
    assert np.corrcoef(pictures)[0, 1] > np.corrcoef(pictures)[0, 2] + 0.3


def test_what_shows_another_character_is_left_out():
    symbols = {glyph.character for glyph in read_glyphs('cmsy10')}
    assert 'A' not in symbols and '∞' in symbols and '♡' in symbols
    for stem, wrong in glyph_rendering.WRONG_GLYPHS.items():
        assert not set(wrong) & {glyph.character for glyph in read_glyphs(stem)}


def test_nothing_invisible_is_read(glyphs):
    for found in glyphs.values():
        assert not set(' \u00a0\u00ad\u2003\t\ue000') & set(found)
        assert all(len(glyph.vertices) for glyph in found.values())


def test_missing_fonts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(glyph_rendering, 'font_folder', lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match='DejaVuSans.ttf.*install matplotlib again'):
        font_files()
