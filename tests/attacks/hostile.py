"""Full disks, folders without rights, files that vanish or never end, and files made to harm."""
from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import pickle
import socket
import struct
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from retrieval.evaluation import MatchCalibration
from retrieval.gallery import Gallery, GalleryStore
from retrieval.image_files import find_images
from retrieval.image_io import read_image
from retrieval.index import ExactIndex, FaissIndex
from retrieval.retrievers import dump_in_parts
from retrieval.search import ImageRetrievalInferencer

from ..gallery.examples import contents, example
from ..search.pictures import PIPELINE, picture, retriever, write
from .attack import Tally, attack, clean_error, run_cases
from .damaged_files import KINDS, Damage, _memory
from .kills import _dumping

NOBODY = 65534
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
READ_ONLY = 1 | 32  # MS_RDONLY, MS_REMOUNT


def _store(folder: Path) -> GalleryStore:
    return GalleryStore(folder / 's.gallery')


def _index(make: Callable[[], Any], folder: Path) -> None:
    index = make()
    index.add(np.random.default_rng(5).normal(size=(300, 16)).astype(np.float32),
              map(str, range(300)))
    index.save(folder / 'index')


def _large(prefix: str) -> Gallery:
    return Gallery(torch.randn(2000, 16), [f'{prefix}{row}' for row in range(2000)])


def _cache(folder: Path) -> None:
    ImageRetrievalInferencer(retriever(), folder / 'photos', folder / 'cache.safetensors',
                             pipeline=PIPELINE, progress=False)


WRITERS: dict[str, Callable[[Path], Any]] = {
    'a gallery': lambda folder: _large('x').save(folder / 'g.safetensors'),
    'a store, append': lambda folder: _store(folder).append(example(3, 'new')),
    'a store, update': lambda folder: _store(folder).update(
        example(4, 'a', seed=9).subset([0, 3])),
    'a store, remove': lambda folder: _store(folder).remove(['a1']),
    'a store, compact': lambda folder: _store(folder).compact(),
    'a store, export': lambda folder: _store(folder).export(folder / 'g.safetensors'),
    'a new store': lambda folder: GalleryStore.create(folder / 'n.gallery', example(3)),
    'an exact index': partial(_index, ExactIndex),
    'a faiss index': partial(_index, FaissIndex),
    'a calibration': lambda folder: MatchCalibration(0.5).save(folder / 'c.json'),
    'a dump': lambda folder: dump_in_parts(_dumping(), folder / 'd.safetensors', shard_rows=20),
    'a cache': _cache,
}


def _prepare(folder: Path) -> dict[str, Any]:
    """What is there before; what it holds."""
    example(5, 'old').save(folder / 'g.safetensors')
    store = GalleryStore.create(folder / 's.gallery', example(4, 'a'))
    store.append(example(2, 'c', seed=3))
    store.remove(['a2'])
    MatchCalibration(0.25).save(folder / 'c.json')
    for seed in range(4):
        write(folder / 'photos' / f'{seed}.png', seed)
    return _held(folder)


def _held(folder: Path) -> dict[str, Any]:
    store = GalleryStore(folder / 's.gallery')
    store.verify()
    return dict(gallery=contents(Gallery.load(folder / 'g.safetensors')),
                store=contents(store.load()),
                calibration=repr(MatchCalibration.load(folder / 'c.json')))


def _mount(folder: str, size: int | None) -> None:
    """A file system in memory for this process alone; nothing of it is left when it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if size is not None and libc.unshare(NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), 'unshare')
    private, none = 1 << 18 | 1 << 14, None  # MS_PRIVATE, MS_REC
    if size is not None:
        libc.mount(none, b'/', none, private, none)
        failed = libc.mount(b'tmpfs', folder.encode(), b'tmpfs', 0, f'size={size}'.encode())
    else:
        failed = libc.mount(none, folder.encode(), none, READ_ONLY, none)
    if failed:
        raise OSError(ctypes.get_errno(), 'mount')


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder that the parent deletes: this process cannot, or it is mounted over."""
    yield tempfile.mkdtemp(dir=SCRATCH[-1])


SCRATCH: list[str] = []


def _refused(act: Callable[[], Any], *numbers: int) -> str | None:
    """What is wrong with how something fails; '' where it does not."""
    try:
        act()
    except OSError as error:
        cause: BaseException | None = error
        while cause is not None:
            if getattr(cause, 'errno', None) in numbers:
                return None
            cause = cause.__cause__
        return f'{type(error).__name__}: {error}'
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return ''


def full_disk(writer: str, free: int) -> str | None:
    """One error that says so, and what was there is whole."""
    with _folder() as name:
        _mount(name, 2 ** 19)
        folder = Path(name)
        before = _prepare(folder)
        names = sorted(str(one) for one in folder.rglob('*'))
        left = os.statvfs(name).f_bavail * os.statvfs(name).f_frsize
        (folder / 'ballast').write_bytes(bytes(max(0, left - free)))
        said = _refused(lambda: WRITERS[writer](folder), errno.ENOSPC)
        if said is None:
            if _held(folder) != before:
                return 'what was there before has changed'
            more = [one for one in folder.rglob('*') if str(one) not in names
                    and one.name not in ('ballast', 'lock') and not one.is_dir()
                    and '.parts' not in str(one)]
            return f'{more} is left' if more else None
        return said or None


def read_only(writer: str) -> str | None:
    """One error that says so."""
    with _folder() as name:
        _mount(name, 2 ** 21)
        before = _prepare(Path(name))
        _mount(name, None)
        said = _refused(lambda: WRITERS[writer](Path(name)), errno.EROFS)
        if said is None:
            return None if _held(Path(name)) == before else 'it has changed'
        if writer == 'a cache' and said == '':  # what cannot be kept is found all the same
            return None
        return said or 'it was written'


def no_rights(writer: str) -> str | None:
    """A folder of another user's: one error that says so."""
    with _folder() as name:
        _prepare(Path(name))
        os.chmod(name, 0o755)
        os.setuid(NOBODY)
        return _refused(lambda: WRITERS[writer](Path(name)), errno.EACCES, errno.EPERM) or None


def _read(damage: Damage, kind: str) -> str | None:
    try:
        KINDS[kind].answer(damage.paths[kind])
    except Exception as error:
        target = next(iter(damage.files[kind]))
        return None if clean_error(error) or isinstance(error, OSError) and \
            Path(target).name in str(error) else f'{type(error).__name__}: {error}'
    return ''


def unreadable(damage: Damage, kind: str) -> str | None:
    """Files whose rights do not let them be read."""
    for target in damage.files[kind]:
        os.chmod(target, 0)
    os.setuid(NOBODY)
    return _read(damage, kind) or None


def special(damage: Damage, kind: str, what: str) -> str | None:
    """A pipe, a device, a socket or a folder in the place of a file."""
    target = next(iter(damage.files[kind]))
    os.unlink(target)
    if what == 'pipe':
        os.mkfifo(target)
    elif what == 'device':
        os.symlink('/dev/zero', target)
    elif what == 'socket':
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(target))
    elif what == 'circle':
        os.symlink(target, target)
    else:
        os.mkdir(target)
    said = _read(damage, kind)
    return 'it was read' if said == '' and kind != 'cache of a folder' else said or None


class Runs:
    """Would write a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def hostile_pickle(damage: Damage, kind: str, protocol: int) -> str | None:
    """A pickle that calls something, in the place of a file that may hold pickles."""
    target = Path(next(iter(damage.files[kind])))
    mark = f'{target}.ran'
    evil = Runs(mark)
    if target.suffix in ('.pt', '.pth'):
        torch.save(dict(state_dict=evil), target, pickle_protocol=max(2, protocol))
    elif target.suffix in ('.npy', '.npz'):
        array = np.empty(1, object)
        array[0] = evil
        (np.save if target.suffix == '.npy' else np.savez)(target, array)
    else:
        target.write_bytes(pickle.dumps(evil, protocol))
    said = _read(damage, kind)
    return 'it has run' if os.path.exists(mark) else said if said else \
        'it was read' if said == '' and KINDS[kind].checked else None


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack('>I', zlib.crc32(kind + body))
        return struct.pack('>I', len(body)) + kind + body + check
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return (b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(data))
            + chunk(b'IEND', b''))


def _good_jpeg() -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(1)).resize((64, 64)).save(out, 'JPEG')
    return out.getvalue()


PICTURES: dict[str, Callable[[], bytes]] = {
    'nothing': lambda: b'', 'text': lambda: b'no picture', 'random': lambda: os.urandom(5000),
    'a bomb': lambda: _png(60_000, 60_000, bytes(1000)),
    'a long strip': lambda: _png(2 ** 31 - 1, 1, b''),
    'a cut png': lambda: _png(40, 40, bytes(40 * 121))[:-30],
    'svg': lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    'postscript': lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/x) (r) file',
    'a cut jpeg': lambda: _good_jpeg()[:300], 'gif': lambda: b'GIF89a' + b'\xff' * 40,
    'tiff': lambda: b'II*\0' + b'\xff' * 60,
    'webp': lambda: b'RIFF\xff\xff\xff\xffWEBPVP8 ' + bytes(40),
    'pickle': lambda: pickle.dumps({}), 'bmp': lambda: b'BM' + struct.pack(
        '<IIIIiiHHI', 9, 0, 54, 40, 2 ** 30, 2 ** 30, 1, 24, 0)}


def hostile_picture(name: str, suffix: str) -> str | None:
    """One error, or, of a cut one, what is left; soon, and in little memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'x{suffix}')
        path.write_bytes(PICTURES[name]())
        begin, said = time.process_time(), None if 'cut' in name else 'it was read'
        try:
            read_image(str(path))
        except Exception as error:
            said = None if clean_error(error) else f'{type(error).__name__}: {error}'
        spent = time.process_time() - begin
        return said if spent < 5 else f'it took {spent:.1f} s'


def hostile_archive(damage: Damage, kind: str, what: str) -> str | None:
    """Archives that claim too much, name files outside, or hold themselves."""
    target = Path(next(iter(damage.files[kind])))
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as archive:
        if what == 'bomb':
            for part in ('embeddings.npy', 'archive/data.pkl', 'config.json'):
                archive.writestr(part, bytes(2 ** 28))
        elif what == 'outside':
            archive.writestr('../outside.npy', b'x')
            archive.writestr('/tmp/attack-outside', b'x')
        else:
            archive.writestr('config.json', '[' * 10 ** 6)
    said = _read(damage, kind)
    return 'it was read' if said == '' else said or None


def vanishing(seed: int) -> str | None:
    """Pictures that go while their folder is encoded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [write(folder / 'photos' / f'{number}.png', number) for number in range(60)]
        rng = np.random.default_rng(seed)

        def away() -> None:
            for path in rng.permutation(paths)[:40]:
                time.sleep(0.0003)
                os.unlink(path)
        thread = threading.Thread(target=away)
        thread.start()
        try:
            for _ in range(4):
                _cache(folder)
        except Exception as error:
            return None if clean_error(error) else f'{type(error).__name__}: {error}'
        finally:
            thread.join()
        return None


def clock(seed: int) -> str | None:
    """The time goes back between changes: they are noticed, and the store takes them."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(5):
            write(folder / 'photos' / f'{number}.png', number)
        store = GalleryStore.create(folder / 's.gallery', example(2, 'a'))
        for step in range(4):
            now = float(rng.integers(1, 2 ** 31))
            with patch('time.time', lambda now=now: now):
                path = write(folder / 'photos' / '3.png', 100 + step)
                os.utime(path, (now, now))
                _cache(folder)
                store.append(example(1, f's{step}-'))
                store.compact()
            kept = Gallery.load(folder / 'cache.safetensors')
            fresh = ImageRetrievalInferencer(retriever(), folder / 'photos', pipeline=PIPELINE,
                                             progress=False).model.gallery
            if not torch.allclose(kept.embeddings, fresh.embeddings, rtol=1e-4, atol=1e-2):
                return f'a picture that changed at {now} was not noticed'
        return None if len(store) == 6 else f'{len(store)} rows'


def circles(_: int) -> str | None:
    """Links that lead back to where they are: each picture is found, and the search ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(3):
            write(folder / 'a' / 'b' / f'{number}.png', number)
        os.symlink(folder, folder / 'a' / 'up')
        os.symlink(folder / 'a' / 'b', folder / 'a' / 'b' / 'again')
        os.symlink(folder / 'x', folder / 'x')
        os.symlink(folder / 'nowhere', folder / 'broken.png')
        found = [one for one in find_images(folder) if 'broken' not in str(one)]
        return None if 3 <= len(found) <= 9 else f'{len(found)} were found'


def _cases(damage: Damage) -> list[tuple[str, tuple[Any, ...], Callable[[], str | None]]]:
    """All cases by what they are, with their arguments."""
    pickled = ['checkpoint', 'vectors, pt', 'vectors, npy', 'vectors, npz', 'ground truth, pickle',
               'gallery, float32', 'exact index']
    wanted: list[tuple[Callable[..., str | None], list[tuple[Any, ...]]]] = [
        (full_disk, [(one, free) for one in WRITERS for free in (0, 4096, 20_000)]),
        (read_only, [(one,) for one in WRITERS]), (no_rights, [(one,) for one in WRITERS]),
        (partial(unreadable, damage), [(kind,) for kind in KINDS]),
        (partial(special, damage), [(kind, what) for kind in KINDS if kind != 'bundle' for what in (
            'pipe', 'device', 'folder', 'circle')]),
        (partial(hostile_pickle, damage), [(kind, protocol) for kind in pickled
                                           for protocol in (0, 2, 4)]),
        (hostile_picture, [(one, suffix) for one in PICTURES for suffix in ('.png', '.jpg')]),
        (partial(hostile_archive, damage), [(kind, what) for kind in (
            'vectors, npz', 'vectors, pt', 'checkpoint', 'bundle, zip') for what in (
            'bomb', 'outside', 'deep')]),
        (vanishing, [(seed,) for seed in range(5)]), (clock, [(seed,) for seed in range(3)]),
        (circles, [(0,)])]
    return [(getattr(check, 'func', check).__name__, arguments, partial(check, *arguments))
            for check, each in wanted for arguments in each]


@attack('full disks, no rights, special and hostile files', 240, 0.05, 'cases')
def hostile(tally: Tally) -> None:
    """Each kind, each writer and reader, once."""
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-', dir=_memory()) as folder:
        os.chmod(folder, 0o755)
        SCRATCH.append(folder)
        damage = Damage(Path(folder), list(KINDS))
        cases = _cases(damage)
        share = min(1, tally.least / 240)
        chosen = [case for case in cases if share == 1 or tally.rng.random() < share]
        counts: dict[str, int] = {}
        for name, arguments, check in chosen:
            if tally.left <= 0:
                break
            counts[name] = counts.get(name, 0) + 1
            for files in damage.files.values():  # as the case before may have left them
                for path, data in files.items():
                    _restore(Path(path), data)
            run_cases(tally, lambda case, check=check: check(), [(name, *arguments)], seconds=60,
                      memory=2 ** 31)
    tally.notes.append(', '.join(f'{name.replace("_", " ")} {count}'
                                 for name, count in counts.items()))


def _restore(path: Path, data: bytes) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    if not path.exists() or path.stat().st_size != len(data) or path.read_bytes() != data:
        path.write_bytes(data)
    os.chmod(path, 0o644)
