"""Processes that are killed while they write: what they said is done stays done."""
from __future__ import annotations

import contextlib
import io
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import serving_load
from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.open import open_index
from retrieval.retrievers import ImageToImageRetriever, dump_in_parts
from retrieval.retrievers.encoded_parts import PartsFolder
from retrieval.search import ImageRetrievalInferencer
from retrieval.server import app, follow, served, service  # noqa: F401  (loaded before forks)

from ..gallery.examples import example, rows_of
from ..retrievers.toy import Encoder, Images, loader
from ..search.pictures import PIPELINE, retriever, write
from .attack import Tally, attack, end, ended, forked, wait


def killed(action: Callable[[int], None], seconds: float, rng: random.Random,
           says: bool = True) -> list[str] | None:
    """The lines that a child wrote into its pipe until it was killed; None where it had ended.

    Args:
        action: is given the pipe.
        seconds: within which it is killed, after its first line or at once.
        says: it writes lines.
    """
    said, out = os.pipe()
    child = forked(lambda: action(out))
    os.close(out)
    if says and rng.random() < 0.7:  # from the first that is acknowledged on, or from the start
        select.select([said], [], [], 30)
    time.sleep(rng.uniform(0, seconds))
    code = end(child)
    with open(said, 'rb') as pipe:
        lines = pipe.read().decode().splitlines()
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f'the child ended with {code} by itself')
    return lines if code else None


# A dump ----------------------------------------------------------------------------------------

def _dumping() -> Any:
    torch.manual_seed(0)
    return ImageToImageRetriever(Encoder(), loader(Images(60), batch_size=2)).eval()


def _rows_in(folder: Path) -> int:
    return sum(len(part.ids) for part in PartsFolder(folder).parts()) if folder.is_dir() else 0


@attack('SIGKILL during a dump', 120, 0.04, 'kills')
def dump(tally: Tally) -> None:
    """A dump is killed and resumed until it ends: no part that was there goes."""
    wanted = _dumping().gallery
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        dump_in_parts(_dumping(), f'{folder}/g.safetensors', shard_rows=4)
    whole = time.monotonic() - begin
    while tally.goes_on():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'g.safetensors')
            held = 0

            def act(out: int, path: Path = path) -> None:
                dump_in_parts(_dumping(), path, shard_rows=4)
            for _ in range(6):
                if killed(act, whole * 1.2, tally.rng, says=False) is None or not tally.goes_on():
                    break
                rows = 60 if path.exists() else _rows_in(Path(f'{path}.parts'))
                tally.count(None if rows >= held else f'{rows} rows in parts, after {held}')
                held = rows
            if not path.exists() or os.path.exists(f'{path}.parts'):
                dump_in_parts(_dumping(), path, shard_rows=4)
            gallery = Gallery.load(path)
            gallery.verify()
            if not torch.equal(gallery.embeddings, wanted.embeddings) or \
                    list(gallery.ids) != list(wanted.ids):
                tally.count('the dump in the end is another one')


# A store ---------------------------------------------------------------------------------------

def _plan(seed: int, compacting: bool, held: set[str]) -> Callable[[int], tuple[str, list[str]]]:
    """The n-th change, from what is held before it."""
    def change(number: int) -> tuple[str, list[str]]:
        rng = random.Random(f'{seed} {number}')
        kinds = ['compact'] * 2 if compacting else ['update', 'remove', 'remove', 'compact']
        kind = rng.choice(['append', 'append', *kinds])
        if kind == 'compact' or kind == 'append' or not held:
            return ('compact', []) if kind == 'compact' and held else (
                'append', [f'{seed}-{number}-{row}' for row in range(rng.randrange(1, 9))])
        return kind, rng.sample(sorted(held), min(len(held), rng.randrange(1, 5)))
    return change


def _rows(kind: str, ids: list[str], number: int) -> Gallery:
    return example(len(ids), ids=ids, seed=number)


def _apply(state: dict[str, Any], kind: str, ids: list[str], number: int) -> dict[str, Any]:
    if kind == 'remove':
        return {name: row for name, row in state.items() if name not in ids}
    if kind == 'compact':
        return state
    new = rows_of(_rows(kind, ids, number))
    return {**{name: row for name, row in state.items() if name not in ids}, **new}


def _stores(tally: Tally, compacting: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = GalleryStore.create(f'{folder}/x.gallery', example(2, 'base'))
        state, number = rows_of(store.load()), 0
        while tally.goes_on():
            def act(out: int, first: int = number, names: tuple[str, ...] = tuple(state)) -> None:
                held, own = set(names), GalleryStore(store.path)
                change = _plan(tally.seed, compacting, held)
                for step in range(first, first + 10_000):
                    kind, ids = change(step)
                    if kind == 'compact':
                        own.compact()
                    elif kind == 'remove':
                        own.remove(ids)
                        held.difference_update(ids)
                    else:
                        getattr(own, kind)(_rows(kind, ids, step))
                        held.update(ids)
                    os.write(out, b'%d\n' % step)
            lines = killed(act, 0.15, tally.rng) or []
            held = set(state)
            change = _plan(tally.seed, compacting, held)
            for step in range(number, number + len(lines)):
                kind, ids = change(step)
                state = _apply(state, kind, ids, step)
                held.clear()
                held.update(state)
            number += len(lines)
            doubtful = _apply(state, *change(number), number)
            store.verify()
            found = rows_of(store.load()) if len(store) else {}
            if found == state:
                tally.count()
            elif found == doubtful:
                tally.count()
                state, number = doubtful, number + 1
            else:
                tally.count(f'after {number} changes the store is neither as acknowledged nor one '
                            f'change further: {sorted(set(found) ^ set(state))[:5]}')
                state = found
            if len(state) > 300:
                store.remove(list(state)[:250])
                state = rows_of(store.load())
        tally.notes.append(f'{number:,} changes acknowledged')


@attack('SIGKILL during changes of a store', 200, 0.03, 'kills')
def stores(tally: Tally) -> None:
    """Additions, updates, removals; after a kill all that was acknowledged is there."""
    _stores(tally, compacting=False)


@attack('SIGKILL during compaction', 150, 0.03, 'kills')
def compaction(tally: Tally) -> None:
    """The same, where every other change is a compaction."""
    _stores(tally, compacting=True)


# An index --------------------------------------------------------------------------------------

@attack('SIGKILL while an index is built', 120, 0.02, 'kills')
def indexes(tally: Tally) -> None:
    """The file is the last that was acknowledged or the one after it, whole."""
    vectors = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    makers = [ExactIndex, FaissIndex, lambda: FaissIndex('HNSW8')]
    with tempfile.TemporaryDirectory() as folder:
        path, last = Path(folder, 'index'), 0
        while tally.goes_on():
            def act(out: int, first: int = last) -> None:
                for size in range(first + 1, first + 1000):
                    index: Any = makers[size % 3]()
                    index.add(vectors[:size], map(str, range(size)))
                    index.save(path)
                    os.write(out, b'%d\n' % size)
            lines = killed(act, 0.2, tally.rng) or []
            last = int(lines[-1]) if lines else last
            if not path.exists():
                tally.count(f'{last} was acknowledged and is gone' if last else None)
                continue
            size = len(open_index(path))
            tally.count(None if size in (last, last + 1) else
                        f'{size} rows, where {last} were acknowledged')
            last = size
            if last > 900:
                path.unlink()
                last = 0
            left = [one for one in os.listdir(folder) if one != 'index']
            if len(left) > tally.done + 1:
                tally.count(f'{len(left)} files are left')


# A folder --------------------------------------------------------------------------------------

@attack('SIGKILL while a folder is updated', 120, 0.04, 'kills')
def folders(tally: Tally) -> None:
    """Pictures come, change and go; after a kill the search finds what a fresh one finds."""
    with tempfile.TemporaryDirectory() as name:
        pictures, cache = Path(name, 'pictures'), Path(name, 'cache.safetensors')
        for seed in range(20):
            write(pictures / f'{seed}.png', seed)

        def act(out: int) -> None:
            ImageRetrievalInferencer(retriever(), pictures, cache, pipeline=PIPELINE,
                                     progress=False)
        begin = time.monotonic()
        act(0)
        whole = time.monotonic() - begin
        while tally.goes_on():
            for _ in range(5):
                one = tally.rng.randrange(25)
                if tally.rng.random() < 0.25 and one > 5:
                    (pictures / f'{one}.png').unlink(missing_ok=True)
                else:
                    write(pictures / f'{one}.png', tally.rng.randrange(10 ** 6))
            if killed(act, whole * 1.2, tally.rng, says=False) is None:
                continue
            find = ImageRetrievalInferencer(retriever(), pictures, cache, pipeline=PIPELINE,
                                            progress=False)
            fresh = ImageRetrievalInferencer(retriever(), pictures, pipeline=PIPELINE,
                                             progress=False).model.gallery
            mine = find.model.gallery
            same = list(mine.ids) == list(fresh.ids) and torch.allclose(
                mine.embeddings, fresh.embeddings, rtol=1e-4, atol=1e-2)
            tally.count(None if same else 'the folder is searched by other embeddings')


# A server --------------------------------------------------------------------------------------

class Zygote:
    """A process that is forked before there are threads, and forks servers when it is asked."""

    def __init__(self) -> None:
        asked, self.ask = os.pipe()
        self.answers, answer = os.pipe()

        def work() -> None:
            os.close(self.ask)
            with open(asked) as orders:
                for order in orders:
                    what, *rest = order.split()
                    if what == 'start':
                        child = forked(lambda rest=rest: serving_load.serve(rest[0], int(rest[1])))
                        os.write(answer, b'%d\n' % child)
                    else:
                        os.write(answer, b'%d\n' % ended(int(rest[0])))
        self.child = forked(work)
        os.close(asked)
        os.close(answer)
        self.lines = open(self.answers)  # noqa: SIM115

    def say(self, *words: object) -> int:
        """The answer to an order."""
        os.write(self.ask, (' '.join(map(str, words)) + '\n').encode())
        return int(self.lines.readline())


class Served:
    """What ``serving_load`` needs of a process."""

    def __init__(self, zygote: Zygote, store: str, port: int) -> None:
        self.zygote, self.pid = zygote, zygote.say('start', store, port)
        if self.pid < 2:
            raise RuntimeError(f'{self.pid} is no process')

    def poll(self) -> None:
        """It is taken to run."""

    def send_signal(self, number: int) -> None:
        """End it."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code."""
        return self.zygote.say('wait', self.pid)


@attack('SIGKILL of a server under writes', 100, 0.12, 'kills')
def serving(tally: Tally) -> None:
    """Clients that add, replace, remove and search, and a server that is killed again and again."""
    zygote, kills = Zygote(), []

    class Forked(serving_load.Server):
        def start(self) -> None:
            """Fork it, and wait until it answers."""
            self.process = Served(zygote, self.store, self.port)  # type: ignore[assignment]
            kills.append(1)
            begin = time.monotonic()
            while True:
                if time.monotonic() - begin > 300:
                    raise SystemExit('the server does not start')
                with contextlib.suppress(OSError):
                    if self.ask('GET', '/readyz')[0] == 200:
                        self.up.set()
                        return
                time.sleep(0.02)
    out = io.StringIO()
    plain, serving_load.Server = serving_load.Server, Forked  # type: ignore[misc]
    try:
        with contextlib.redirect_stdout(out):
            wrong: list[str] = []
            while len(kills) <= tally.least and tally.left > 0 and not wrong:
                minutes = min(tally.left, 1.2 * (tally.least - len(kills) + 2)) / 60
                wrong = serving_load.load(minutes, 3, 0.5)
    finally:
        serving_load.Server = plain  # type: ignore[misc]
        os.close(zygote.ask)
        wait(zygote.child, 20)
    tally.done = len(kills) - 1
    tally.failures += wrong
    requests = [line for line in out.getvalue().splitlines() if 'search: ' in line]
    tally.notes.append(requests[-1] if requests else '')
    if wrong:
        print(out.getvalue()[-2000:], file=sys.stderr)
