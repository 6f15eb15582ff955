"""A large gallery: build, save, open, search, add, remove, compact, with time and peak memory.

Each step runs in a process of its own, so that the peak is that of the step; the first line says
what a process holds that has done nothing but import. Files are written below --folder and deleted
at the end. "Read" times are with the file in the system's cache, unless it does not fit. What is
told at the end, over the disk alone, begins without the files in that cache: the disk's time is
that of reading and writing as many bytes in pieces of 8 MiB, synced.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import verdict

PIECE = 8 << 20


def evict(path: str) -> None:
    """Take a file, or the files of a folder, out of the system's cache."""
    os.sync()
    for file in [path] if os.path.isfile(path) else map(str, Path(path).rglob('*')):
        if os.path.isfile(file):
            with open(file, 'rb') as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_of(action: Callable[[], Any]) -> tuple[float, Any]:
    """How long an action takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def peak_memory() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gallery_of(rows: int, width: int, prefix: str = 'images/of/some/folder/', seed: int = 0) -> Any:
    """Random rows of length 1, with ids and 1,000 classes."""
    import numpy as np

    from retrieval.gallery import Gallery
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Gallery(vectors, ids=(f'{prefix}{row:09}.jpg' for row in range(rows)),
                   labels=rng.integers(0, 1000, rows))


def nothing(options: argparse.Namespace) -> dict[str, float]:
    """Import and do nothing."""
    import retrieval.gallery
    import retrieval.index  # noqa: F401
    return {'': 0}


def build(options: argparse.Namespace) -> dict[str, float]:
    """Make the gallery in memory, and save it."""
    import retrieval.gallery  # noqa: F401  (not part of what is timed)
    made, gallery = seconds_of(lambda: gallery_of(options.rows, options.width))
    saved, _ = seconds_of(lambda: gallery.save(options.file, options.dtype))
    return {'build, with the random numbers': made, 'save, synced to the disk': saved}


def opening(options: argparse.Namespace) -> dict[str, float]:
    """Open the file, and touch a few rows of it."""
    from retrieval.gallery import Gallery
    opened, gallery = seconds_of(lambda: Gallery.load(options.file))
    again, _ = seconds_of(lambda: Gallery.load(options.file))
    one, _ = seconds_of(lambda: (gallery.ids[options.rows // 2], gallery.subset([5, 7])))
    return {'open, the first': opened, 'open, again': again, 'read two rows and an id': one}


def search(options: argparse.Namespace) -> dict[str, float]:
    """Check all embeddings, index them, and search."""
    from retrieval.gallery import Gallery
    from retrieval.index import ExactIndex
    gallery = Gallery.load(options.file)
    read, rows = seconds_of(lambda: gallery.embeddings)
    index = ExactIndex()
    added, _ = seconds_of(lambda: index.add(rows, gallery.ids))
    first, found = seconds_of(lambda: index.search(rows[:1], 10))
    second, _ = seconds_of(lambda: index.search(rows[1:2], 10))
    assert found.indices[0, 0] == 0
    return {'read and check all embeddings': read, 'add them to an ExactIndex': added,
            'first search, one query': first, 'second search': second}


def find(options: argparse.Namespace) -> dict[str, float]:
    """Look 1,000 ids up."""
    from retrieval.gallery import Gallery
    gallery = Gallery.load(options.file)
    names = [gallery.ids[row] for row in range(0, options.rows, max(1, options.rows // 1000))]
    return {f'find {len(names)} ids': seconds_of(lambda: gallery.find(names))[0]}


def disk(options: argparse.Namespace) -> dict[str, float]:
    """Read the file, and write as many bytes: what the disk takes."""
    def read() -> None:
        with open(options.file, 'rb', buffering=0) as file:
            while file.read(PIECE):
                pass

    def write() -> None:
        with open(f'{options.file}.copy', 'wb', buffering=0) as file:
            for _ in range(os.path.getsize(options.file) // PIECE):
                file.write(piece)
            os.fsync(file.fileno())
    evict(options.file)
    found = {'disk: read the file': seconds_of(read)[0]}
    piece = os.urandom(PIECE)
    found['disk: write as many bytes, synced'] = seconds_of(write)[0]
    os.unlink(f'{options.file}.copy')
    return found


def verify(options: argparse.Namespace) -> dict[str, float]:
    """Read and check everything."""
    from retrieval.gallery import Gallery
    evict(options.file)
    opened, gallery = seconds_of(lambda: Gallery.load(options.file))
    return {'open, from the disk': opened, 'verify, from the disk': seconds_of(gallery.verify)[0],
            'verify, from the cache': seconds_of(gallery.verify)[0]}


def create(options: argparse.Namespace) -> dict[str, float]:
    """Make a store of the file."""
    from retrieval.gallery import Gallery, GalleryStore
    seconds, _ = seconds_of(lambda: GalleryStore.create(
        options.store, Gallery.load(options.file), options.dtype))
    return {'make a store of it': seconds}


def add(options: argparse.Namespace) -> dict[str, float]:
    """Add 1,000 rows to the store."""
    from retrieval.gallery import GalleryStore
    new = gallery_of(1000, options.width, 'new/', seed=1)
    store = GalleryStore.open(options.store)
    return {'add 1,000 rows': seconds_of(lambda: store.append(new))[0]}


def remove(options: argparse.Namespace) -> dict[str, float]:
    """Remove 1,000 rows from the store, and open it."""
    from retrieval.gallery import GalleryStore
    store = GalleryStore.open(options.store)
    ids = store.load().ids
    names = [ids[row] for row in range(0, 2 * min(1000, options.rows // 4), 2)]
    removed, _ = seconds_of(lambda: store.remove(names))
    opened, _ = seconds_of(lambda: GalleryStore.open(options.store).load())
    return {f'remove {len(names)} rows': removed, 'open it, with removed rows': opened}


def compact(options: argparse.Namespace) -> dict[str, float]:
    """Write the rows that are left as one shard."""
    from retrieval.gallery import GalleryStore
    evict(options.store)
    opened, store = seconds_of(lambda: GalleryStore.open(options.store))
    return {'open the store, from the disk': opened,
            'compact, from the disk': seconds_of(store.compact)[0]}


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    step.__name__: step for step in (nothing, build, disk, opening, search, find, verify, create,
                                     add, remove, compact)}


def main() -> None:
    """Run every step and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--width', type=int, default=128)
    parser.add_argument('--dtype', default='float32', help='float32, float16 or int8')
    parser.add_argument('--folder', default=tempfile.gettempdir(), help='where files are written')
    parser.add_argument('--step', choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument('--file', help=argparse.SUPPRESS)
    parser.add_argument('--store', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        seconds = STEPS[options.step](options)
        print(json.dumps(dict(seconds=seconds, memory=peak_memory())))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file, store = Path(folder) / 'g.safetensors', Path(folder) / 's.gallery'
        print(f'{options.rows} x {options.width} {options.dtype}, with ids and labels')
        taken: dict[str, float] = {}
        for step in STEPS:
            command = [sys.executable, __file__, *sys.argv[1:], '--step', step, '--file', str(file),
                       '--store', str(store)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            report(found)
            taken |= found['seconds']
        print(f'file: {file.stat().st_size / 2**20:.1f} MiB')
    read, write = taken['disk: read the file'], taken['disk: write as many bytes, synced']
    size = f'{options.rows:,} x {options.width} {options.dtype}'
    for work, name, alone in (('saving', 'save, synced to the disk', write),
                              ('verifying', 'verify, from the disk', read),
                              ('compacting a store of', 'compact, from the disk', read + write)):
        verdict(f'{work} {size}, time', 'the disk alone', taken[name] / alone,
                ours=f'{taken[name]:.2f} s', theirs=f'{alone:.2f} s')


def report(found: dict[str, Any]) -> None:
    """Print what a step took."""
    memory = f'{found["memory"]:9.0f} MiB'
    for name, seconds in found['seconds'].items():
        print(f'{name or "(imports alone)":34}{1e3 * seconds:11.1f} ms   {memory}', flush=True)
        memory = ''


if __name__ == '__main__':
    main()
