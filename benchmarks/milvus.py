"""MilvusIndex against bare pymilvus calls on the same data, on the embedded Milvus or a server.

    python benchmarks/milvus.py [--uri http://…] [--rows 20000] [--width 128] [--queries 100]

Both use one server (the embedded one in this process, or that of the address), the same batches, a
FLAT index and cosine; the bare side inserts, flushes and searches, all queries in one call, and
keeps the ids that Milvus returns. On a server neither flushes, which both leave to it, and both
search at session consistency.
The order is ours, bare, ours, bare, … call by call, and five batches by five, so that a busy
machine hits both. Printed are the medians of the wall-clock seconds, the ratio ours / bare, that of
this process's processor time beside it, and the recall of both against an exact search.
"""
from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

BATCH = 2048


class Side(Protocol):
    """One of the two."""

    def add(self, rows: np.ndarray, ids: list[str]) -> None:
        """Put more rows into the collection."""

    def search(self, queries: np.ndarray, topk: int) -> list[list[str]]:
        """The ids of the best rows."""

    def close(self) -> None:
        """Drop the collection."""


class Ours:
    """Our index."""

    def __init__(self, uri: str) -> None:
        from retrieval.index import MilvusIndex
        self.index = MilvusIndex(uri, f'ours_{uuid.uuid4().hex[:8]}', batch_size=BATCH)

    def add(self, rows: np.ndarray, ids: list[str]) -> None:
        """Put more rows into the collection."""
        self.index.add(rows, ids)

    def search(self, queries: np.ndarray, topk: int) -> list[list[str]]:
        """The ids of the best rows."""
        return self.index.search(queries, topk).ids

    def close(self) -> None:
        """Drop the collection."""
        from retrieval.index.milvus.collection import drop
        store = self.index._store
        store.connection.call('drop_alias', store.name)
        drop(store.connection, store.name, store.own or '')
        self.index.close()


class Bare:
    """The same with pymilvus alone."""

    def __init__(self, uri: str) -> None:
        from pymilvus import MilvusClient
        self.client, self.name = MilvusClient(uri), f'bare_{uuid.uuid4().hex[:8]}'
        self.embedded = uri.endswith('.db')

    def create(self, width: int) -> None:
        """Make the collection."""
        from pymilvus import DataType
        schema = self.client.create_schema()
        schema.add_field('id', DataType.VARCHAR, is_primary=True, max_length=1024)
        schema.add_field('embedding', DataType.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index.add_index('embedding', index_type='FLAT', metric_type='COSINE')
        self.client.create_collection(self.name, schema=schema)
        self.client.create_index(self.name, index, sync=False)
        self.client.load_collection(self.name)

    def add(self, rows: np.ndarray, ids: list[str]) -> None:
        """Put more rows into the collection."""
        if not self.client.has_collection(self.name):
            self.create(rows.shape[1])
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            self.client.insert(self.name, [{'id': one, 'embedding': vector} for one, vector in
                                           zip(ids[part], rows[part], strict=True)])
        if self.embedded:
            self.client.flush(self.name)

    def search(self, queries: np.ndarray, topk: int) -> list[list[str]]:
        """The ids of the best rows."""
        found = self.client.search(self.name, list(queries), limit=topk, output_fields=['id'],
                                   consistency_level='Session')
        return [list(hits.ids) for hits in found]

    def close(self) -> None:
        """Drop the collection."""
        self.client.drop_collection(self.name)
        self.client.close()


def recall(found: list[list[str]], wanted: list[list[str]]) -> float:
    """The share of what an exact search finds."""
    return statistics.mean(len(set(a) & set(b)) / len(b)
                           for a, b in zip(found, wanted, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in dict(rows=20_000, width=128, queries=100, topk=10, repeat=3,
                              searches=9, singles=200).items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--uri', help='of a server; the default is the embedded Milvus')
    args = parser.parse_args()
    from retrieval.index import ExactIndex, MilvusIndex
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(args.rows, args.width)).astype(np.float32)
    queries = generator.normal(size=(args.queries, args.width)).astype(np.float32)
    ids = [f'picture{row}.jpg' for row in range(args.rows)]
    exact = ExactIndex()
    exact.add(rows, ids)
    wanted = exact.search(queries, args.topk).ids
    del exact
    wall: dict[tuple[str, str], list[float]] = defaultdict(list)
    processor: dict[tuple[str, str], float] = defaultdict(float)

    def timed(work: str, name: str, call: Callable[[], Any]) -> Any:
        began, spent = time.perf_counter(), time.process_time()
        result = call()
        wall[work, name].append(time.perf_counter() - began)
        processor[work, name] += time.process_time() - spent
        return result

    recalls = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(
            MilvusIndex(uri := args.uri or f'{folder}/benchmark.db', 'keeper')):  # one for all
        for _ in range(args.repeat):
            sides: dict[str, Side] = dict(ours=Ours(uri), bare=Bare(uri))
            sums = dict.fromkeys(sides, 0.0)
            for start in range(0, args.rows, 5 * BATCH):
                part = slice(start, start + 5 * BATCH)
                for name, side in sides.items():
                    timed('part', name, lambda side=side, part=part:  # type: ignore[misc]
                          side.add(rows[part], ids[part]))
                    sums[name] += wall['part', name][-1]
            for name, total in sums.items():
                wall['insert', name].append(total)
                processor['insert', name] = processor['part', name]
            for name, side in sides.items():
                recalls[name] = recall(side.search(queries, args.topk), wanted)
            for work, some, count in (('search', queries, args.searches),
                                      ('single', queries[:1], args.singles)):
                for _ in range(count):
                    for name, side in sides.items():
                        timed(work, name, lambda side=side, some=some:  # type: ignore[misc]
                              side.search(some, args.topk))
            for side in sides.values():
                side.close()
    print(f'{args.rows:,} rows of width {args.width}, {args.queries} queries, top {args.topk}')
    for work, count in (('insert', args.rows), ('search', args.queries), ('single', 1)):
        mine, theirs = (statistics.median(wall[work, name]) for name in ('ours', 'bare'))
        print(f'{work}: ours {mine:.4f} s ({count / mine:,.0f}/s), bare pymilvus {theirs:.4f} s '
              f'({count / theirs:,.0f}/s), ratio {mine / theirs:.2f}, of processor time '
              f'{processor[work, "ours"] / processor[work, "bare"]:.2f}')
    for name, found in recalls.items():
        print(f'recall@{args.topk} of {name}: {found:.4f}')


if __name__ == '__main__':
    main()
