"""Size, date and camera of pictures whose EXIF data are written here."""
import pytest
from PIL import Image

from retrieval.image_files import UnreadableImageError
from retrieval.picture_facts import Facts, read_facts

MAKE, MODEL, CHANGED, ORIENTATION, EXIF, TAKEN = 0x010F, 0x0110, 0x0132, 0x0112, 0x8769, 0x9003


def written(path, tags=None, taken=None):
    """A picture of 30 x 20 pixels with these tags."""
    image = Image.new('RGB', (30, 20), 'red')
    exif = image.getexif()
    exif.update(tags or {})
    if taken is not None:
        exif.get_ifd(EXIF)[TAKEN] = taken
    image.save(path, exif=exif)
    return str(path)


def test_a_bare_picture(tmp_path):
    path = written(tmp_path / 'a.jpg')
    assert read_facts(path) == Facts(30, 20, (tmp_path / 'a.jpg').stat().st_size, None, None)


@pytest.mark.parametrize(('orientation', 'size'), [
    (1, (30, 20)), (3, (30, 20)), (4, (30, 20)), (5, (20, 30)), (6, (20, 30)), (8, (20, 30))])
def test_the_size_is_upright(orientation, size, tmp_path):
    assert read_facts(written(tmp_path / 'a.jpg', {ORIENTATION: orientation}))[:2] == size


@pytest.mark.parametrize(('make', 'model', 'camera'), [
    ('NIKON', 'D90', 'NIKON D90'), ('Canon', 'Canon EOS 5D', 'Canon EOS 5D'),
    (' Sony\0', None, 'Sony'), (None, 'X100', 'X100'), ('x' * 99, 'y', 'x' * 80)])
def test_the_maker_is_not_named_twice(make, model, camera, tmp_path):
    tags = {tag: text for tag, text in ((MAKE, make), (MODEL, model)) if text is not None}
    assert read_facts(written(tmp_path / 'a.jpg', tags)).camera == camera


@pytest.mark.parametrize(('taken', 'date'), [
    ('2024:05:31 17:20:09', '2024-05-31 17:20:09'), ('2024-05-31T17:20', '2024-05-31 17:20'),
    ('2024:05:31', '2024-05-31'), ('0000:00:00 00:00:00', '2020-01-02 03:04:05'),
    ('yesterday', '2020-01-02 03:04:05'), (None, '2020-01-02 03:04:05')])
def test_when_it_was_taken_goes_before_when_it_was_changed(taken, date, tmp_path):
    path = written(tmp_path / 'a.jpg', {CHANGED: '2020:01:02 03:04:05'}, taken)
    assert read_facts(path).date == date


def test_no_date_is_none(tmp_path):
    assert read_facts(written(tmp_path / 'a.jpg', taken='0000:00:00')).date is None


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
def test_damaged_exif_beside_a_sound_picture(tmp_path):
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.jpg', exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    assert read_facts(str(tmp_path / 'a.jpg'))[:2] == (30, 20)


def test_what_is_no_picture(tmp_path):
    (tmp_path / 'a.jpg').write_text('text')
    with pytest.raises(UnreadableImageError, match='a.jpg'):
        read_facts(str(tmp_path / 'a.jpg'))
