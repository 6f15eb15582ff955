"""Image files: which they are, how they are found in folders, and how they are opened.

Pillow opens them, by their bytes and never by their names, in the formats of :data:`FORMATS` alone.
None of their decoders starts a program or reads another file, as those of EPS, WMF and others do.
"""
from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image

from .checks import whole_number
from .compat import message_of_worker
from .foreign_files import SpecialFileError, open_regular, refuse_special, special_kind

#: What is opened, under Pillow's names; those that are known by few bytes come last.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF', 'HEIF', 'JPEG2000', 'PPM', 'PSD',
           'QOI', 'DDS', 'SGI', 'SUN', 'ICO', 'PCX', 'DIB', 'TGA')
_PLUGINS = ('Avif', 'Bmp', 'Dds', 'Gif', 'Ico', 'Jpeg', 'Jpeg2K', 'Mpo', 'Pcx', 'Png', 'Ppm', 'Psd',
            'Qoi', 'Sgi', 'Sun', 'Tga', 'Tiff', 'WebP')
_HEIF = ('.heic', '.heif', '.hif')
#: What image files end in; the bytes decide what is in them.
EXTENSIONS = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.webp', '.gif', '.bmp', '.dib',
    '.tif', '.tiff', '.avif', '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.ppm',
    '.pgm', '.pbm', '.pnm', '.psd', '.qoi', '.dds', '.sgi', '.rgb', '.rgba', '.bw', '.ras', '.ico',
    '.pcx', '.tga', '.icb', '.vda', '.vst', *(_HEIF if find_spec('pillow_heif') else ()))

# What file servers, systems and archives put beside the pictures: thumbnails, bins, other forks.
_NOT_THE_USERS = frozenset((
    '@eadir', '@tmp', '@__thumb', '@recycle', '@recently-snapshot', '@sharebin', '@sharesnap',
    '#recycle', '#snapshot', '$recycle.bin', 'recycler', 'system volume information', 'lost+found',
    'found.000', '__macosx'))

MAX_PIXELS = 178_956_970  # where Pillow stops too: as 24-bit colour it is half a gibibyte
MAX_PIXELS_VARIABLE = 'RETRIEVAL_MAX_PIXELS'
_MAX_BYTES = 2 ** 31
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's trouble, not the image's


class UnreadableImageError(OSError, ValueError):
    """An image file that cannot be decoded; the message names the file and the reason.

    It says the same where a loader worker met the file.

    Example:
        >>> [kind.__name__ for kind in UnreadableImageError.__bases__]
        ['OSError', 'ValueError']
    """

    def __init__(self, message: str) -> None:
        super().__init__(message_of_worker(message))

    # torch raises an error of a worker that has a message in a way that does not tie the error to
    # itself. Others keep the loader until garbage is collected, which then waits 5 s a worker.
    message = property(str)


class MissingImageError(UnreadableImageError, FileNotFoundError):
    """An image file that is not there.

    Example:
        >>> open_image('absent.png').__enter__()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        retrieval.image_files.MissingImageError: There is no image 'absent.png': check the path ...
    """


# Folders -----------------------------------------------------------------------------------------

def find_images(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> list[str]:
    """The image files in a folder and its sub-folders, sorted; see :func:`list_images`.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ('cat', 'dog'):
        ...     (root / name).mkdir()
        ...     Image.new('L', (2, 2)).save(root / name / '0.png')
        >>> [Path(path).relative_to(root).as_posix() for path in find_images(root)]
        ['cat/0.png', 'dog/0.png']
    """
    return list_images(folder, extensions)[0]


def list_images(folder: str | Path,
                extensions: Sequence[str] = EXTENSIONS) -> tuple[list[str], Counter[str]]:
    """The image files in a folder and its sub-folders, and what was passed over.

    Links to folders are followed; each folder is searched once, under its own name where it has
    one below ``folder``, so that links may go round in circles. A link that leads nowhere counts as
    a file: who opens it says what is wrong. Hidden names (with a leading dot) and folders that are
    not the user's (:func:`is_hidden`) are left out.

    Args:
        folder: where to look.
        extensions: what image files end in, whatever the case.

    Returns:
        The paths, sorted, and how often each kind was passed over: the ending of a file, the name
        of a folder with a slash, ``'a named pipe'`` and the like.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new('L', (2, 2)).save(root / '0.png')
        >>> (root / 'notes.txt').touch()
        >>> len(list_images(root)[0]), list_images(root)[1]
        (1, Counter({'.txt': 1}))
    """
    top = str(folder)
    if not os.path.exists(top):
        raise FileNotFoundError(f'There is no folder {top!r}: check the path.')
    refuse_special(top)
    if not os.path.isdir(top):
        raise NotADirectoryError(f'{top!r} is a file; a folder of images is wanted.')
    endings = tuple(ending.lower() for ending in extensions)
    found: list[str] = []
    passed_over: Counter[str] = Counter()
    seen: set[str] = set()
    # a folder: its name, where it really is, and the real folders that the way to it began in
    folders: list[tuple[str, str, tuple[str, ...]]] = [(top, os.path.realpath(top), ())]
    links: list[tuple[str, str, tuple[str, ...]]] = []
    while folders or links:
        path, real, chain = folders.pop() if folders else links.pop(0)
        if real in seen:
            passed_over['a link to a folder that is searched anyway'] += 1
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            if path == top or error.errno in _EXHAUSTED:
                raise
            passed_over[f'a folder that cannot be read ({error.strerror})'] += 1
            continue
        for entry in entries:
            name, mode = os.path.join(path, entry.name), _mode(entry)
            if stat.S_ISDIR(mode) and is_hidden(entry.name):
                if not entry.name.startswith('.'):
                    passed_over[f'{entry.name}/'] += 1
            elif entry.name.startswith('.'):
                continue
            elif stat.S_ISDIR(mode) and not entry.is_symlink():
                folders.append((name, os.path.join(real, entry.name), chain))
            elif stat.S_ISDIR(mode):
                target = os.path.realpath(name)
                if any(_inside(one, target) for one in (*chain, real)):
                    passed_over['a link to a folder that it is in'] += 1
                else:
                    links.append((name, target, (*chain, real)))
            elif special_kind(mode):
                passed_over[special_kind(mode) or ''] += 1
            elif entry.name.lower().endswith(endings):
                found.append(name)
            else:
                passed_over[os.path.splitext(entry.name)[1].lower() or 'no ending'] += 1
    return sorted(found), passed_over


def is_hidden(name: str) -> bool:
    """True for the name of a folder whose pictures are not the user's: hidden ones, bins, and what
    file servers and archives add (``@eaDir``, ``#recycle``, ``lost+found``, ``__MACOSX``, …).

    Example:
        >>> is_hidden('.thumbnails'), is_hidden('@eaDir'), is_hidden('cats')
        (True, True, False)
    """
    return name.startswith('.') or name.lower() in _NOT_THE_USERS


def describe_passed_over(passed_over: Counter[str]) -> str:
    """What was passed over, for a message: kinds and their counts, the most frequent first.

    Example:
        >>> describe_passed_over(Counter({'.txt': 1, '@eaDir/': 20}))
        '@eaDir/ (20), .txt (1)'
    """
    common = passed_over.most_common(12)
    text = ', '.join(f'{kind} ({count})' for kind, count in common)
    text += ', …' if len(passed_over) > len(common) else ''
    wants_heif = any(ending in passed_over for ending in _HEIF) and not find_spec('pillow_heif')
    return text + "; pip install 'retrieval[heif]' reads HEIC" * wants_heif


def _mode(entry: os.DirEntry[str]) -> int:
    """The type of what an entry leads to; that of a file where it leads nowhere."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    try:
        return os.stat(entry.path).st_mode
    except OSError:
        return stat.S_IFREG


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


# Opening -----------------------------------------------------------------------------------------

@contextmanager
def open_image(path: str | os.PathLike[str], max_pixels: int | None = None,
               data: bytes | None = None) -> Iterator[tuple[Image.Image, bytes]]:
    """Open an image file; what decoders raise inside becomes one error that names the file.

    Args:
        path: the file.
        max_pixels: the most pixels that a picture may have; by default what the environment
            variable ``RETRIEVAL_MAX_PIXELS`` says, else 178,956,970.
        data: its bytes, where they are read already, as from a server.

    Yields:
        The image, which Pillow has not decoded yet, and the bytes of the file. Of a PNG file those
        without texts and colour profile, which no pixel depends on.

    Raises:
        MissingImageError: there is no such file (a ``FileNotFoundError``).
        UnreadableImageError: it is no file, none of :data:`FORMATS`, too large, or damaged (an
            ``OSError`` and ``ValueError``).

    Example:
        >>> import tempfile
        >>> path = f'{tempfile.mkdtemp()}/red.png'
        >>> Image.new('RGB', (3, 2), 'red').save(path)
        >>> with open_image(path) as (image, data):
        ...     image.format, image.size, data[1:4]
        ('PNG', (3, 2), b'PNG')
    """
    limit = pixel_limit(max_pixels)
    data = _read_bytes(path) if data is None else bytes(data)
    with readable(path, len(data)):
        data = _without_texts(data)
        with _identified(data) as image:
            pixels = image.width * image.height
            if pixels > limit:
                raise UnreadableImageError(
                    f'The image {str(path)!r} claims to have {image.width} x {image.height} = '
                    f'{pixels:,} pixels, and up to {limit:,} are read. To read it, write '
                    f'max_pixels={pixels} into LoadImage or read_image, or set the environment '
                    f'variable {MAX_PIXELS_VARIABLE}={pixels}.')
            _check_length(image, data)
            yield image, data


@contextmanager
def readable(path: str | os.PathLike[str], size: int) -> Iterator[None]:
    """Inside, what a decoder raises becomes an UnreadableImageError that names the file."""
    try:
        yield
    except (MemoryError, UnreadableImageError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error …
        reason = str(error) or type(error).__name__
        raise UnreadableImageError(f'Cannot read the image {str(path)!r} ({size} bytes): '
                                   f'{reason}. Replace or remove it.') from error


def pixel_limit(max_pixels: int | None = None) -> int:
    """How many pixels a picture may have: what is given, what the environment says, the default.

    Raises:
        ValueError: it is no whole number above 0.

    Example:
        >>> pixel_limit(100), pixel_limit()
        (100, 178956970)
    """
    said = os.environ.get(MAX_PIXELS_VARIABLE)
    if max_pixels is not None:
        limit = whole_number('max_pixels', max_pixels)
    elif said is None:
        return MAX_PIXELS
    elif not said.isdecimal():
        raise ValueError(f'{MAX_PIXELS_VARIABLE} must be a whole number, got {said!r}.')
    else:
        limit = whole_number(MAX_PIXELS_VARIABLE, int(said))
    if Image.MAX_IMAGE_PIXELS is not None and limit > MAX_PIXELS:
        # some of Pillow's decoders ask for its own limit when they meet a frame
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    return limit


@lru_cache(maxsize=1)
def _load_plugins() -> None:
    for name in _PLUGINS:
        with suppress(ImportError):  # AVIF came with Pillow 11.3
            import_module(f'PIL.{name}ImagePlugin')
    if find_spec('pillow_heif'):
        import_module('pillow_heif').register_heif_opener()


def _identified(data: bytes) -> Image.Image:
    """The image, not decoded: as ``Image.open`` with formats, without its warnings and its limit.

    Raises:
        ValueError: no format fits.
    """
    _load_plugins()
    said = ''
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        fits: Any = factory is not None and (accept is None or accept(data[:16]))
        if isinstance(fits, str):  # a format that this Pillow was built without
            said = f' ({fits})'
        elif fits and factory is not None:
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                return factory(io.BytesIO(data), '')
    if data[4:12] in (b'ftypheic', b'ftypheix', b'ftypmif1', b'ftypmsf1', b'ftyphevc'):
        said = " (HEIC: pip install 'retrieval[heif]' to read it)"
    raise ValueError(f'no known image format{said}')


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise UnreadableImageError(f'The image {str(path)!r} has {size:,} bytes, and files '
                                           f'of up to {_MAX_BYTES:,} are read as images.')
            return file.read()
    except FileNotFoundError as error:
        leads = f'it is a link to {os.readlink(path)!r}' if os.path.islink(path) else \
            'check the path and `data_root`'
        raise MissingImageError(f'There is no image {str(path)!r}: {leads}.') from error
    except SpecialFileError as error:
        raise UnreadableImageError(f'Cannot open the image: {error}') from error
    except UnreadableImageError:
        raise
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        raise UnreadableImageError(
            f'Cannot open the image {str(path)!r}: {error.strerror or error}.') from error


# PNG (ISO/IEC 15948, section 5.3): chunks of length, type, data, CRC
_PNG = b'\x89PNG\r\n\x1a\n'
_TEXTS = (b'tEXt', b'zTXt', b'iTXt', b'iCCP')
_ORIENTING = (b'Raw profile type exif\0', b'XML:com.adobe.xmp\0')  # texts that may say what is up
_MAX_TEXT = 2 ** 20


def _without_texts(data: bytes) -> bytes:
    """A PNG file without its colour profile and its texts; Pillow refuses large ones."""
    if not data.startswith(_PNG) or not any(kind in data for kind in _TEXTS):
        return data
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place:place + 4], 'big')
        kind, body = data[place + 4:place + 8], data[place + 8:place + 8 + _MAX_TEXT]
        if kind not in _TEXTS or (kind != b'iCCP' and end - place < _MAX_TEXT and
                                  body.startswith(_ORIENTING) and _is_short(kind, body)):
            kept.append(data[place:end])
        place = end
    return b''.join(kept)


def _is_short(kind: bytes, body: bytes) -> bool:
    """True for a text that is short when it is inflated too."""
    packed = body.partition(b'\0')[2]
    if kind == b'iTXt':
        compressed, packed = packed[:1] == b'\1', packed[2:].split(b'\0', 2)[-1]
    else:
        compressed, packed = kind == b'zTXt', packed[1:]
    if not compressed:
        return True
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_TEXT)) < _MAX_TEXT
    except zlib.error:
        return False


def _check_length(image: Any, data: bytes) -> None:
    """Raises ValueError for a JPEG file that is too short for as many pixels as it claims.

    Every block of 8 x 8 pixels takes a code of one bit at least, and in a baseline file a second
    for its end (ITU-T T.81, section F.1.2). Decoders fill what is missing with grey.
    """
    if image.format not in ('JPEG', 'MPO'):
        return
    width, height = image.size
    start = re.search(rb'\xff([\xc0-\xc2])..\x08' + re.escape(struct.pack('>HH', height, width)),
                      data, re.DOTALL)
    if start is None:
        return
    widest, highest = (max(part[axis] for part in image.layer) for axis in (1, 2))
    blocks = sum(ceil(ceil(width * across / widest) / 8) * ceil(ceil(height * down / highest) / 8)
                 for _, across, down, _ in image.layer)
    least = blocks * (1 if start[1] == b'\xc2' else 2) // 8
    if len(data) - start.end() < least:
        raise ValueError(f'it claims to have {width} x {height} pixels, which take {least:,} bytes '
                         'at least')
