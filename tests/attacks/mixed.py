"""Mixed work in one process for a long time: its memory must not grow."""
from __future__ import annotations

import gc
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval.evaluation import evaluate
from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import ExactIndex, FaissIndex
from retrieval.ranking import topk, within
from retrieval.rerank import rerank
from retrieval.search import ImageRetrievalInferencer

from ..search.pictures import PIPELINE, retriever, write
from .attack import Tally, attack

GROWTH = 1.05


def megabytes() -> float:
    """Resident memory of this process that is no file's, after a collection."""
    gc.collect()
    text = Path('/proc/self/status').read_text()
    return int(text.split('RssAnon:')[1].split()[0]) / 1024


class Work:
    """One of everything, each round with other numbers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng, self.round = folder, np.random.default_rng(seed), 0
        self.pictures = folder / 'pictures'
        for number in range(12):
            write(self.pictures / f'{number}.png', number)
        self.store = GalleryStore.create(folder / 's.gallery', self.gallery(50, 'first'))

    def vectors(self, count: int) -> np.ndarray:
        """``(count, 16)``."""
        return self.rng.normal(size=(count, 16)).astype(np.float32)

    def gallery(self, count: int, prefix: str) -> Gallery:
        """Rows with everything that a gallery may have."""
        return Gallery(self.vectors(count), [f'{prefix} {row}' for row in range(count)],
                       [f'class {row % 5}' for row in range(count)],
                       metadata=dict(year=np.arange(count), place=['x', 'yy'] * (count // 2)))

    def evaluating(self) -> None:
        """Every kind of ranking."""
        count = int(self.rng.integers(50, 300))
        labels = self.rng.integers(0, 20, count)
        labels[:2] = 0
        found = evaluate(self.vectors(count), labels,
                         metrics=['Recall@1', 'MAP@R', 'mAP', 'NDCG@5'])
        assert 0 <= found['mAP'] <= 100
        gallery = self.vectors(count)
        topk(self.vectors(9), gallery, 7, 'euclidean')
        within(self.vectors(9), gallery, 0.3)
        rerank(self.vectors(5), gallery,
               [dict(type='KReciprocal'), dict(type='AlphaQueryExpansion')])

    def files(self) -> None:
        """A gallery file, written and opened again."""
        path = self.folder / 'g.safetensors'
        gallery = self.gallery(60, 'row')
        gallery.save(path, ['float32', 'float16', 'int8'][self.round % 3])
        again = Gallery.load(path, copy=self.round % 2 == 0)
        again.verify()
        assert list(again.ids) == list(gallery.ids) and again.where('year >= 3').sum() == 57

    def changes(self) -> None:
        """A store that grows and shrinks."""
        self.store.append(self.gallery(10, f'round {self.round}'))
        self.store.remove([f'round {self.round} {row}' for row in range(10)])
        if self.round % 7 == 0:
            self.store.compact()
        assert len(self.store.load(copy=True)) == 50

    def indexes(self) -> None:
        """Indexes, built, searched, saved and loaded."""
        for make in (ExactIndex, FaissIndex, lambda: FaissIndex('HNSW16')):
            index: Any = make()
            index.add(self.vectors(200), map(str, range(200)))
            index.remove(['3', '7'])
            index.save(self.folder / 'index')
            again = type(index).load(self.folder / 'index')
            assert len(again.search(self.vectors(3), 4).ids) == 3

    def folders(self) -> None:
        """A folder of pictures that changes, encoded and searched."""
        write(self.pictures / 'new.png', self.round)
        inferencer = ImageRetrievalInferencer(retriever(), self.pictures,
                                              self.folder / 'cache.safetensors', pipeline=PIPELINE)
        assert len(inferencer(np.array(Image.open(self.pictures / '3.png')))[0]['results']) == 5

    def serving(self) -> None:
        """A server with uploads, searches and changes."""
        from retrieval.server.follow import follow_store
        from retrieval.server.served import Served
        from retrieval.server.service import Service, Source

        from ..server.conftest import ask
        service = Service(Served(retriever(self.store.load(copy=True)), PIPELINE, store=self.store),
                          Source('s', self.folder / 'state'))
        try:
            follow_store(service)
            client, out = ask(service), io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), self.round % 255, np.uint8)).save(out, 'PNG')
            answer = client.post('/v1/embed', content=out.getvalue(),
                                 headers={'content-type': 'application/octet-stream'})
            assert answer.status_code == 200, answer.text
            query = dict(queries=[dict(vector=self.vectors(1)[0].tolist())], k=3)
            assert len(client.post('/v1/search', json=query).json()['results']) == 3
        finally:
            service.close()

    def all(self) -> None:
        """One round."""
        self.round += 1
        for part in (self.evaluating, self.files, self.changes, self.indexes, self.folders,
                     self.serving):
            part()


@attack('mixed work in one process, memory', 100, 0.08, 'rounds')
def memory(tally: Tally) -> None:
    """The memory in the last fifth against that after the first tenth."""
    measured: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-') as folder:
        work = Work(Path(folder), tally.seed)
        while tally.left > 0:
            work.all()
            tally.done += 1
            if tally.done % 5 == 0:
                measured.append((time.monotonic() - tally.begin, megabytes()))
            if tally.done % 100 == 0 and 'ATTACK_VERBOSE' in os.environ:
                print(f'{measured[-1][0]:.0f} s: {measured[-1][1]:.1f} MB', flush=True)
    begin = [used for at, used in measured if 0.1 < at / tally.seconds < 0.3]
    last = [used for at, used in measured if at / tally.seconds > 0.8]
    if not begin or not last:
        tally.notes.append('too short to be measured')
        return
    first, then = float(np.median(begin)), float(np.median(last))
    tally.notes.append(f'{first:.0f} MB, then {then:.0f} MB ({100 * (then / first - 1):+.1f} %)')
    if then > GROWTH * first:
        tally.failures.append(tally.notes[-1])
