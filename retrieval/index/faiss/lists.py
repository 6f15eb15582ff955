"""Inverted lists in a file of their own, for an index that is larger than the memory.

The file holds, list after list, the codes and then the numbers (int64) of its vectors, as faiss's
``OnDiskInvertedLists`` map it. How long the lists are, and the file's checksum, stand in the index
file that the lists belong to.
"""
from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np

from ...files import write_atomically
from ...mapped_file import DamagedError
from .factory import load_faiss

Renumber = Callable[[np.ndarray], np.ndarray]
_CHUNK = 2 ** 24


def plain_lists(ivf: Any) -> bool:
    """True where the lists hold one code after another, and not blocks packed for fast scanning."""
    faiss = load_faiss()
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    return isinstance(lists, (faiss.ArrayInvertedLists, faiss.OnDiskInvertedLists))


@contextmanager
def detached(parts: Sequence[Any], really: bool) -> Iterator[None]:
    """Inside, the innermost index of ``parts`` has empty lists, and none of them counts rows."""
    if not really:
        yield
        return
    faiss = load_faiss()
    core, totals = parts[-1], [part.ntotal for part in parts]
    lists, owned = core.invlists, core.own_invlists
    empty = faiss.ArrayInvertedLists(core.nlist, core.code_size)
    core.own_invlists = False
    core.replace_invlists(empty, False)
    for part in parts:
        part.ntotal = 0
    try:
        yield
    finally:
        core.replace_invlists(lists, owned)
        for part, total in zip(parts, totals, strict=True):
            part.ntotal = total


def sizes_of(ivfs: Sequence[Any]) -> np.ndarray:
    """The lengths ``(nlist,)`` int64 of the lists of several indexes together."""
    return np.array([sum(ivf.invlists.list_size(number) for ivf in ivfs)
                     for number in range(ivfs[0].nlist)], dtype=np.int64)


def entries(ivf: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes ``(n, code_size)`` uint8 and slots ``(n,)`` int64 of one list, copied."""
    faiss = load_faiss()
    lists = ivf.invlists
    count = lists.list_size(number)
    if not count:
        return np.zeros((0, lists.code_size), np.uint8), np.zeros(0, np.int64)
    codes, slots = lists.get_codes(number), lists.get_ids(number)
    try:
        return (faiss.rev_swig_ptr(codes, count * lists.code_size).reshape(count, -1).copy(),
                faiss.rev_swig_ptr(slots, count).copy())
    finally:
        lists.release_codes(number, codes)
        lists.release_ids(number, slots)


def write_lists(sources: Sequence[tuple[Any, Renumber]], name: str) -> str:
    """Write the lists of one or several indexes to a file; the checksum of what was written.

    Args:
        sources: inverted files with the same centroids, each with the function from its slots to
            those in the result.
        name: the file.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(name, 'wb') as out:
        for number in range(sources[0][0].nlist):
            found = [(codes, renumber(slots)) for ivf, renumber in sources
                     for codes, slots in [entries(ivf, number)]]
            for part in (*(codes for codes, _ in found), *(slots for _, slots in found)):
                data = part.tobytes()
                digest.update(data)
                out.write(data)
    return digest.hexdigest()


def save_lists(ivf: Any, renumber: Renumber, path: Path) -> Path:
    """Write the lists beside the index file ``path``, under a name with their checksum."""
    digests: list[str] = []
    draft = path.with_name(f'{path.name}.lists.part')
    write_atomically(draft, lambda name: digests.append(write_lists([(ivf, renumber)], name)))
    final = path.with_name(f'{path.name}.{digests[0]}.lists')
    os.replace(draft, final)
    return final


def drop_other_lists(path: Path, keep: Path | None) -> None:
    """Remove lists that earlier versions of the index file ``path`` left behind."""
    for old in path.parent.glob(f'{glob.escape(path.name)}.*.lists'):
        digest = old.name[len(path.name) + 1:-len('.lists')]
        if old != keep and len(digest) == 32 and set(digest) <= set('0123456789abcdef'):
            old.unlink(missing_ok=True)


def check_lists(path: Path, size: int, verify: bool) -> None:
    """Compare a file of lists with its size in bytes and the checksum in its name.

    Args:
        verify: False to leave the checksum out, which reads the whole file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f'The inverted lists {str(path)!r} of the index are missing: the '
                                'two files belong together.')
    sound = path.stat().st_size == size
    if sound and verify:
        found = hashlib.blake2b(digest_size=16)
        with open(path, 'rb') as opened:
            while part := opened.read(_CHUNK):
                found.update(part)
        sound = found.hexdigest() == path.name.split('.')[-2]
    if not sound:
        raise ValueError(f'{str(path)!r} is damaged: its checksum does not fit. Write the index '
                         'again.')


def map_lists(ivf: Any, path: Path, sizes: np.ndarray, writable: bool) -> None:
    """Let an inverted file search the lists in a file of :func:`write_lists`."""
    faiss = load_faiss()
    lists = faiss.OnDiskInvertedLists(ivf.nlist, ivf.code_size, str(path))
    sizes = np.ascontiguousarray(sizes, dtype=np.uint64)
    if sizes.sum():
        lists.read_only = not writable
        lists.set_all_lists_sizes(faiss.swig_ptr(sizes))
        lists.totsize = int(sizes.sum()) * (ivf.code_size + 8)
        lists.do_mmap()
    lists.this.disown()
    ivf.replace_invlists(lists, True)


def check_mapped(ivf: Any) -> None:
    """Raise DamagedError where the file that an inverted file's lists are mapped from was cut short
    meanwhile: touching what is gone would end the process.
    """
    faiss = load_faiss()
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    if not isinstance(lists, faiss.OnDiskInvertedLists):
        return
    with suppress(FileNotFoundError):  # a deleted file is still there for whoever has it open
        size = os.stat(lists.filename).st_size
        if size < lists.totsize:
            raise DamagedError(f'The inverted lists {lists.filename!r} were cut off after {size} '
                               f'of {lists.totsize} bytes while they were open. Restore the '
                               'file and load the index again.')


def new_file(folder: str | os.PathLike[str]) -> Path:
    """An empty file for lists that change, with a name that nothing else has."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=folder, prefix='inverted-', suffix='.lists')
    os.close(handle)
    return Path(name)


def join_lists(target: Any, sources: Sequence[tuple[Any, Renumber]]) -> None:
    """Append the lists of several inverted files to those of one with the same centroids."""
    faiss = load_faiss()
    for ivf, renumber in sources:
        for number in range(ivf.nlist):
            codes, slots = entries(ivf, number)
            if len(slots):
                slots = np.ascontiguousarray(renumber(slots))
                target.invlists.add_entries(number, len(slots), faiss.swig_ptr(slots),
                                            faiss.swig_ptr(codes))
        target.ntotal += ivf.ntotal
