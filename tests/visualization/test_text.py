"""Text in any script that a font has, cut to fit, and names that can be told apart."""
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from retrieval.visualization import distinct_names, draw_image_grid, plot_curves, text
from retrieval.visualization.text import drawable, fitted, font, wrapped

HAN, THAI = '\u732b', '\u0e01'  # DejaVu Sans has neither


def make_font(path, characters):
    """A font whose characters are full squares, which no other font draws."""
    def square(size):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, size), (size, size), (size, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = {ord(one): f'u{ord(one):04x}' for one in characters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(['.notdef', *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf({'.notdef': square(100), **{name: square(800) for name in names.values()}})
    builder.setupHorizontalMetrics(dict.fromkeys(['.notdef', *names.values()], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(dict(familyName=path.stem, styleName='Regular'))
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with one font beside DejaVu, and a file that only looks like one."""
    make_font(tmp_path / 'squares.ttf', HAN)
    (tmp_path / 'broken.ttf').write_text('no font')
    for cached in (text._by_page, text._font_for, font):
        cached.cache_clear()
    monkeypatch.setattr(text, 'machine_fonts',
                        lambda: [str(tmp_path / name) for name in ('broken.ttf', 'squares.ttf')])
    yield tmp_path
    for cached in (text._by_page, text._font_for, font):
        cached.cache_clear()


def written(line, size=20):
    sheet = Image.new('L', (120, 30), 255)
    font(size).write(ImageDraw.Draw(sheet), 0, 0, line, 0)
    return np.asarray(sheet)


def test_another_font_of_the_machine_writes_what_dejavu_lacks(machine):
    runs = font(20).runs(f'a{HAN}b')
    assert [(path.rsplit('/', 1)[1], run) for path, run in runs] == [
        ('DejaVuSans.ttf', 'a'), ('squares.ttf', HAN), ('DejaVuSans.ttf', 'b')]
    assert font(20).getlength(f'a{HAN}b') == font(20).getlength('a') + 20 + font(20).getlength('b')
    assert (written(HAN) == 0).sum() == 16 * 16, 'the square of the font, no box'
    assert font(20).runs(THAI)[0][0] == font(20).main, 'nobody has it'
    sheets = [np.asarray(draw_image_grid([np.zeros((8, 8), np.uint8)], [name]))
              for name in (HAN, THAI)]
    assert (sheets[0] != sheets[1]).any()


def test_plots_are_written_in_it_too(machine, recwarn):
    plot_curves({HAN: [(0, 1), (1, 2)], 'b': [(0, 1)]}, machine / 'a.png', title=HAN)
    assert not [one for one in recwarn if 'missing from font' in str(one.message)]
    plot_curves({THAI: [(0, 1)]}, machine / 'b.png', title=THAI)
    assert [one for one in recwarn if 'missing from font' in str(one.message)]


def test_names_that_are_no_text_can_be_drawn():
    assert drawable('caf\udce9\x07.png') == 'caf\ufffd\ufffd.png'
    assert drawable('e\u0301\n x') == '\u00e9 x'  # as macOS writes names
    assert (written('caf\udce9.png') < 255).any()


def test_text_that_is_too_long():
    face = font(12)
    for line in ('short', 'a caption that is far too long for this', 'W' * 50, '', ' x\n y '):
        short = fitted(line, 60, face)
        assert face.getlength(short) <= 60 and '\n' not in short
    assert fitted('short', 60, face) == 'short' and fitted('W', 2, face) == ''
    assert [fitted(f'IMG_20240102_long_name_{end}', 90, face)[-5:]
            for end in ('1.jpg', '2.jpg')] == ['1.jpg', '2.jpg']


@pytest.mark.parametrize('width', [25, 60, 100])
@pytest.mark.parametrize('most', [1, 2, 3])
def test_lines_fit_and_nothing_is_lost_where_there_is_room(width, most):
    line = 'a/long_name of a picture/that is-here.jpg'
    lines = wrapped(line, width, font(12), most)
    assert len(lines) <= most and all(font(12).getlength(one) <= width for one in lines)
    joined = ''.join(lines).replace(' ', '')
    head, cut, tail = joined.partition('…')
    assert line.replace(' ', '').startswith(head) and line.replace(' ', '').endswith(tail)
    assert bool(cut) == (len(wrapped(line, width, font(12), 99)) > most)


def test_names_are_the_shortest_that_differ():
    ids = ['/p/2019/a/1.jpg', '/p/2020/a/1.jpg', '/p/2.jpg', '1.jpg', 'x', '/p/2.jpg']
    assert list(distinct_names(ids).values()) == ['2019/a/1.jpg', '2020/a/1.jpg', '2.jpg',
                                                  '1.jpg', 'x']
    assert distinct_names(['/a/1', 'a/1']) == {'/a/1': '/a/1', 'a/1': 'a/1'}
    assert distinct_names([]) == {}
    assert distinct_names(['/p/a/1', '/p/b/2'], ['/p/c/1', '/p/a/1', '/p/b/3']) == {
        '/p/a/1': 'a/1', '/p/b/2': '2'}
