import numpy as np
import pytest
from PIL import Image

from retrieval.visualization import RankedQuery, RankedResult, draw_image_grid, draw_ranking_grid
from retrieval.visualization.grids import RIGHT, UNKNOWN, WRONG, _Layout


def test_pictures_stand_in_rows(tmp_path):
    images = [np.full((5, 5), value, np.uint8) for value in (0, 50, 100, 150, 200)]
    sheet = draw_image_grid(images, path=tmp_path / 'a.png', columns=2, cell=32)
    pixels = np.asarray(sheet)[..., 0]
    for position, value in enumerate((0, 50, 100, 150, 200)):
        row, column = divmod(position, 2)
        step = (pixels.shape[0] - 4) // 3
        top, left = 4 + row * step, 4 + column * 36
        assert (pixels[top:top + 32, left:left + 32] == value).all()
    assert Image.open(tmp_path / 'a.png').size == sheet.size == (4 + 2 * 36, pixels.shape[0])


def test_captions_and_title_make_room():
    images = [np.zeros((5, 5), np.uint8)] * 2
    heights = [draw_image_grid(images, captions).height
               for captions in (None, ['a', 'b'], ['a\nb', 'c'])]
    assert heights[0] == heights[1] < heights[2]
    assert draw_image_grid(images, title='x').height > heights[0]


def test_bad_arguments():
    images = [np.zeros((5, 5), np.uint8)]
    with pytest.raises(ValueError, match='at least one picture'):
        draw_image_grid([])
    with pytest.raises(ValueError, match='1 pictures and 2 captions'):
        draw_image_grid(images, ['a', 'b'])
    with pytest.raises(ValueError, match='cell'):
        draw_image_grid(images, cell=2)


BLACK, WHITE = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)


def hits(*correct):
    return [RankedResult(BLACK, 0.9, right, 'a caption') for right in correct]


def frames(sheet, row, columns, rows=1, cell=96):
    """The colour of the upper left corner of every result's cell."""
    layout = _Layout([(RankedQuery(WHITE, 'q'), hits(*[True] * columns))] * rows, cell)
    return [sheet.getpixel((layout.left(column), layout.top(row))) for column in range(columns)]


def test_frames_tell_right_from_wrong(tmp_path):
    rows = [(RankedQuery(WHITE, 'q'), hits(True, False, None)),
            (RankedQuery(WHITE, 'q'), hits(False, np.True_, True))]
    sheet = draw_ranking_grid(rows, tmp_path / 'a.png')
    assert frames(sheet, 0, 3, 2) == [RIGHT, WRONG, UNKNOWN]
    assert frames(sheet, 1, 3, 2) == [WRONG, RIGHT, RIGHT]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), np.asarray(sheet))


def test_pictures_are_inside_their_frames():
    layout = _Layout([(RankedQuery(WHITE, 'q'), hits(True))], 96)
    sheet = np.asarray(draw_ranking_grid([(RankedQuery(WHITE, 'q'), hits(True))]))
    top, left = layout.top(0), layout.left(0)
    inside = sheet[top + layout.frame:top + 96 - layout.frame,
                   left + layout.frame:left + 96 - layout.frame]
    assert (inside == 0).all()
    query = sheet[top:top + 96, layout.gap:layout.gap + 96]
    assert (query == 255).all()
    frame = sheet[top:top + 96, left:left + layout.frame]
    assert (frame == RIGHT).all()


def test_plain_tuples_fewer_results_and_columns():
    rows = [((WHITE, 'query'), [(BLACK, 0.5, True, 'x')] * 12), ((WHITE,), [(BLACK,)]),
            ((WHITE, ''), [])]
    wide, narrow = draw_ranking_grid(rows), draw_ranking_grid(rows, columns=3)
    assert wide.width > narrow.width
    assert frames(narrow, 0, 3, 3) == [RIGHT] * 3
    layout = _Layout([(RankedQuery(WHITE, 'q'), hits(*[True] * 10))] * 3, 96)
    assert wide.size == (layout.width, layout.height)
    assert draw_ranking_grid([((WHITE, ''), [])]).width > 96


def test_captions_make_room():
    def height(title, caption):
        return draw_ranking_grid([((WHITE, title), [(BLACK, .5, True, caption)])]).height
    assert height('', '') == height('one line', '') < height('', 'x') < height('', 'x\ny')
    assert height('a\nb', '') == height('', 'x')


def test_scores_are_written():
    def text(score):
        sheet = draw_ranking_grid([((WHITE, ''), [(BLACK, score, None, '')])])
        return np.asarray(sheet)[-25:].tobytes()
    assert text(0.123) == text(np.float32(0.1231)) != text(0.456) != text(None)


def test_missing_pictures_do_not_stop_the_drawing(tmp_path):
    draw_ranking_grid([((None, 'q'), [(str(tmp_path / 'absent.png'), 0.5, True, '')])],
                      tmp_path / 'a.png')
    assert (tmp_path / 'a.png').is_file()


def test_ranking_bad_arguments():
    with pytest.raises(ValueError, match='at least one query'):
        draw_ranking_grid([])
    for wrong, says in (({'columns': 0}, 'columns must be an integer of at least 1, got 0'),
                        ({'cell': 3}, 'cell must be an integer of at least 16, got 3')):
        with pytest.raises(ValueError, match=says):
            draw_ranking_grid([((WHITE, ''), [])], **wrong)
