import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from retrieval import image_files
from retrieval.datasets import (
    ImageFolder,
    ImageList,
    LoadImage,
    MissingImageError,
    UnreadableImageError,
    read_image,
)
from retrieval.image_files import EXTENSIONS, describe_passed_over, find_images, list_images
from retrieval.visualization.drawing import as_picture

from .datasets.photos import jpeg, photo
from .datasets.toys import save

WRITTEN = {'.jpe': 'JPEG', '.jfif': 'JPEG', '.apng': 'PNG', '.avif': 'AVIF', '.jp2': 'JPEG2000',
           '.j2k': 'JPEG2000', '.tga': 'TGA', '.pcx': 'PCX', '.sgi': 'SGI', '.ico': 'ICO',
           '.dib': 'DIB', '.pnm': 'PPM', '.qoi': 'QOI', '.dds': 'DDS', '.webp': 'WEBP'}


def below(folder, found):
    return [os.path.relpath(path, folder) for path in found]


# Folders -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('ending', WRITTEN)
def test_what_can_be_decoded_is_found(tmp_path, ending):
    picture = Image.fromarray(photo(32, 32))
    try:
        picture.save(tmp_path / f'a{ending}', format=WRITTEN[ending])
    except (KeyError, OSError) as error:
        pytest.skip(f'this Pillow does not write it: {error}')
    assert find_images(tmp_path) == [str(tmp_path / f'a{ending}')]
    assert np.abs(read_image(tmp_path / f'a{ending}').astype(int) - np.asarray(picture)).mean() < 20


def test_the_list_is_pillows():
    """Every ending is one that Pillow knows for a format on the list, and decodes."""
    Image.init()
    known = Image.registered_extensions()
    for ending in set(EXTENSIONS) - {'.heic', '.heif', '.hif'}:
        assert known[ending] in (*image_files.FORMATS, 'MPO'), ending
    assert {'.eps', '.ps', '.wmf', '.emf', '.pdf', '.svg'}.isdisjoint(EXTENSIONS)


def test_links_to_folders(tmp_path):
    root, shared = tmp_path / 'root', tmp_path / 'shared'
    save(root / 'cats' / '1.jpg')
    save(shared / '2.jpg')
    save(shared / 'deep' / '3.jpg')
    links = {'album': shared, 'again': shared, 'round': root, 'up': tmp_path,
             'cats/own': root / 'cats', 'other': root / 'cats'}
    for name, target in links.items():
        (root / name).symlink_to(target, target_is_directory=True)
    (shared / 'back').symlink_to(root, target_is_directory=True)
    found, passed_over = list_images(root)
    assert below(root, found) == ['again/2.jpg', 'again/deep/3.jpg', 'cats/1.jpg']
    assert passed_over == {'a link to a folder that is searched anyway': 2,
                           'a link to a folder that it is in': 4}


def test_folders_that_are_not_the_users(tmp_path):
    strange = ('@eaDir', '#recycle', '$RECYCLE.BIN', 'lost+found', '__MACOSX', '@Recycle')
    for name in ('cat', *strange, '.thumbnails', 'cat/@eaDir/x'):
        save(tmp_path / name / '1.jpg')
    assert below(tmp_path, find_images(tmp_path)) == ['cat/1.jpg']
    assert ImageFolder(tmp_path).label_names == ['cat']
    assert list_images(tmp_path)[1] == {**{f'{name}/': 1 for name in strange}, '@eaDir/': 2}
    assert len(find_images(tmp_path / '@eaDir')) == 1  # where it is asked for


def test_what_is_passed_over_is_said(tmp_path, caplog):
    from mmengine.logging import MMLogger
    for name in ('a.txt', 'b.TXT', 'c.eps', 'd.heic', 'README'):
        (tmp_path / 'cat' / name).parent.mkdir(exist_ok=True)
        (tmp_path / 'cat' / name).touch()
    os.mkfifo(tmp_path / 'cat' / 'pipe.jpg')
    (tmp_path / 'cat' / 'zero.jpg').symlink_to('/dev/zero')
    save(tmp_path / 'cat' / '1.jpg')
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    datasets = ImageFolder(tmp_path), ImageList(tmp_path)
    logger.removeHandler(caplog.handler)
    assert [len(dataset) for dataset in datasets] == [1 + ('.heic' in EXTENSIONS)] * 2
    for words in ('.txt (2)', '.eps (1)', 'no ending (1)', 'a named pipe (1)', 'a device (1)'):
        assert caplog.text.count(words) == 2
    assert ('retrieval[heif]' in caplog.text) == ('.heic' not in EXTENSIONS)
    many = describe_passed_over(image_files.Counter({f'.{n}': 1 for n in range(99)}))
    assert many.endswith('…')


def test_a_link_to_nothing_is_named_when_it_is_opened(tmp_path):
    (tmp_path / 'gone.jpg').symlink_to(tmp_path / 'nothing.jpg')
    assert below(tmp_path, find_images(tmp_path)) == ['gone.jpg']
    with pytest.raises(MissingImageError, match=r'gone\.jpg.*a link to .*nothing\.jpg'):
        read_image(tmp_path / 'gone.jpg')


# Opening -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('read', [read_image, as_picture])
@pytest.mark.parametrize('data', [
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshow\n%%EOF\n',
    b'\xc5\xd0\xd3\xc6' + struct.pack('<II', 30, 90) + bytes(99),  # EPS with a binary head
    b'\xd7\xcd\xc6\x9a\0\0' + bytes(99), b'\x01\0\0\0' + bytes(99),  # WMF, EMF
    b'GRIB' + bytes(99), b'\x89HDF\r\n\x1a\n' + bytes(99), b'BUFR' + bytes(99), b'%PDF-1.4\n',
    b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'SIMPLE  =                    T'])
def test_other_formats_are_refused_by_their_bytes(tmp_path, monkeypatch, data, read):
    monkeypatch.setattr(subprocess, 'Popen', None)  # no program is started
    (tmp_path / 'holiday.jpg').write_bytes(data)
    with pytest.raises(UnreadableImageError, match=r'holiday\.jpg.*no known image format'):
        read(tmp_path / 'holiday.jpg')


def test_the_name_does_not_matter(tmp_path):
    Image.fromarray(photo(9, 9)).save(tmp_path / 'a.eps', format='PNG')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.eps'), photo(9, 9))


@pytest.mark.parametrize('read', [read_image, as_picture])
def test_special_files_are_refused(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'zero.jpg').symlink_to('/dev/zero')
    for name, kind in (('pipe.jpg', 'a named pipe'), ('zero.jpg', "a device .*'/dev/zero'")):
        with pytest.raises(UnreadableImageError, match=f'{name}.*{kind}'):
            read(tmp_path / name)


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    with open(tmp_path / 'a.jpg', 'wb') as file:
        file.write(jpeg(photo()))
        file.truncate(10 ** 12)  # takes no room on the disk
    with pytest.raises(UnreadableImageError, match=r'a\.jpg.*1,000,000,000,000 bytes'):
        read_image(tmp_path / 'a.jpg')


def test_pixel_limit(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.new('L', (30, 20)).save(path)
    with pytest.raises(UnreadableImageError, match='30 x 20 = 600 pixels, and up to 599.*'
                       'max_pixels=600 into LoadImage.*RETRIEVAL_MAX_PIXELS=600'):
        LoadImage(max_pixels=599)({'img_path': str(path)})
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    monkeypatch.setenv('RETRIEVAL_MAX_PIXELS', '500')
    for read in (read_image, as_picture):
        with pytest.raises(UnreadableImageError, match='up to 500'):
            read(path)
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    monkeypatch.setenv('RETRIEVAL_MAX_PIXELS', 'many')
    with pytest.raises(ValueError, match="whole number, got 'many'"):
        read_image(path)
    with pytest.raises(ValueError, match='max_pixels'):
        LoadImage(max_pixels=0)


def png_of_size(width, height):
    """A sound PNG of one bit a pixel, all black."""
    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', crc)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height))
    head = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def test_more_pixels_than_pillow_allows(tmp_path, monkeypatch, recwarn):
    path = tmp_path / 'a.png'
    path.write_bytes(png_of_size(20_000, 10_000))
    with pytest.raises(UnreadableImageError, match='200,000,000 pixels'):
        read_image(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    with image_files.open_image(path, 200_000_000) as (image, _):
        assert image.size == (20_000, 10_000) and Image.MAX_IMAGE_PIXELS == 200_000_000
    assert not recwarn.list


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 0}])
def test_a_jpeg_that_is_too_short_for_its_size(tmp_path, options):
    """A scan of a block or two, and a head that claims 12,000 x 12,000."""
    path, small = tmp_path / 'a.jpg', jpeg(np.full((8, 8, 3), 99, np.uint8), **options)
    sized = struct.pack('>HH', 12_000, 12_000)
    path.write_bytes(small.replace(b'\x08' + struct.pack('>HH', 8, 8), b'\x08' + sized))
    for read in (read_image, as_picture):
        with pytest.raises(UnreadableImageError, match=r'claims to have 12000 x 12000 .* bytes'):
            read(path)
    # the emptiest sound pictures are read
    for shape in ((2000, 3000, 3), (2000, 3000), (1, 4000, 3)):
        path.write_bytes(jpeg(np.zeros(shape, np.uint8), **{**options, 'optimize': True}))
        assert read_image(path).max() <= 1


def text_png(kind):
    info, more = PngImagePlugin.PngInfo(), {}
    if kind == 'profile':
        more['icc_profile'] = bytes(3 * 2 ** 20)
    elif kind == 'after the pixels':
        info.add(b'zTXt', b'a\0\0' + zlib.compress(bytes(3 * 2 ** 20)), after_idat=True)
    elif kind == 'XMP':
        info.add_itxt('XML:com.adobe.xmp', 'x' * (3 * 2 ** 20), zip=True)
    elif kind == 'much':
        for number in range(70):
            info.add_text(f'a{number}', 'x' * 2 ** 20, zip=True)
    else:
        info.add_text('workflow', 'x' * (3 * 2 ** 20), zip=kind == 'zipped')
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, 'PNG', pnginfo=info, **more)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', ['plain', 'zipped', 'XMP', 'much', 'profile', 'after the pixels'])
def test_png_with_much_beside_the_pixels(tmp_path, kind):
    (tmp_path / 'a.png').write_bytes(text_png(kind))
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), photo())
    np.testing.assert_array_equal(np.asarray(as_picture(tmp_path / 'a.png')), photo())


@pytest.mark.parametrize('key', ['Raw profile type exif', 'XML:com.adobe.xmp'])
@pytest.mark.parametrize('zipped', [False, True])
def test_png_texts_that_turn_the_picture_still_do(tmp_path, key, zipped):
    entries = Image.Exif()
    entries[0x0112] = 3
    raw = entries.tobytes()
    text = f'\nexif\n{len(raw):8}\n{raw.hex()}\n' if 'exif' in key else '<x tiff:Orientation="3"/>'
    info = PngImagePlugin.PngInfo()
    (info.add_text if 'exif' in key else info.add_itxt)(key, text, zip=zipped)
    Image.fromarray(photo()).save(tmp_path / 'a.png', pnginfo=info)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), photo()[::-1, ::-1])


def test_heic(tmp_path):
    path = tmp_path / 'a.heic'
    if '.heic' not in EXTENSIONS:
        path.write_bytes(b'\0\0\0\x18ftypheic' + bytes(64))
        with pytest.raises(UnreadableImageError, match=r'retrieval\[heif\]'):
            read_image(path)
        return
    import pillow_heif
    pillow_heif.from_pillow(Image.fromarray(photo())).save(path)
    assert find_images(tmp_path) == [str(path)]
    assert np.abs(read_image(path).astype(int) - photo()).mean() < 20


# Memory ------------------------------------------------------------------------------------------

PEAK = '''
import resource, sys
from retrieval.datasets import ImageList
from retrieval.encoders import DEFAULT_PIPELINE
data = ImageList(sys.argv[1:], pipeline=DEFAULT_PIPELINE)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for item in data:
    assert item['inputs'].shape == (3, 224, 224)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
'''


def test_strips_take_little_memory(tmp_path):
    Image.new('RGB', (8000, 2), 'red').save(tmp_path / 'a.png')
    Image.new('RGB', (1, 65_500), 'red').save(tmp_path / 'b.jpg')
    (tmp_path / 'c.png').write_bytes(png_of_size(1_000_000, 1))
    done = subprocess.run([sys.executable, '-c', PEAK, *find_images(tmp_path)], text=True,
                          capture_output=True, check=True)
    assert int(done.stdout) < 150, done
