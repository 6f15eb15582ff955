"""MilvusIndex against bare pymilvus calls on the same data, on the embedded Milvus or a server.

    python benchmarks/milvus.py [--uri http://…] [--rows 20000] [--width 128] [--queries 100]

Both use one server (the embedded one in this process, or that of the address), the same batches, a
FLAT index and cosine; the bare side inserts, flushes and searches, all queries in one call, and
keeps the ids that Milvus returns. On a server neither flushes, which both leave to it, and both
search at session consistency; the time of a search is the median of five.
The order is ours, bare, ours, bare, … so that a busy machine hits both. Printed are the medians of
the wall-clock seconds, the ratio ours / bare, and the recall of both against an exact search.
"""
from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BATCH = 2048


class Run(NamedTuple):
    """Seconds of adding, of searching with all queries and with one, and the ids found."""

    insert: float
    search: float
    single: float
    found: list[list[str]]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, and what came of it."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def median_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The median of several."""
    runs = [seconds(work) for _ in range(5)]
    return statistics.median(took for took, _ in runs), runs[0][1]


def ours(uri: str, name: str, rows: np.ndarray, ids: list[str], queries: np.ndarray,
         topk: int) -> Run:
    """Add and search with our index."""
    from retrieval.index import MilvusIndex
    with contextlib.closing(MilvusIndex(uri, name, batch_size=BATCH)) as index:
        added, _ = seconds(lambda: index.add(rows, ids))
        index.search(queries[:1], topk)
        searched, found = median_seconds(lambda: index.search(queries, topk).ids)
        single, _ = median_seconds(lambda: index.search(queries[:1], topk).ids)
    return Run(added, searched, single, found)


def bare(uri: str, name: str, rows: np.ndarray, ids: list[str], queries: np.ndarray,
         topk: int) -> Run:
    """The same with pymilvus alone."""
    from pymilvus import DataType, MilvusClient
    client = MilvusClient(uri)

    def add() -> None:
        schema = client.create_schema()
        schema.add_field('id', DataType.VARCHAR, is_primary=True, max_length=1024)
        schema.add_field('embedding', DataType.FLOAT_VECTOR, dim=rows.shape[1])
        index = client.prepare_index_params()
        index.add_index('embedding', index_type='FLAT', metric_type='COSINE')
        client.create_collection(name, schema=schema)
        client.create_index(name, index, sync=False)
        client.load_collection(name)
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            client.insert(name, [{'id': one, 'embedding': vector} for one, vector in
                                 zip(ids[part], rows[part], strict=True)])
        if uri.endswith('.db'):
            client.flush(name)

    def search(some: np.ndarray) -> list[list[str]]:
        found = client.search(name, list(some), limit=topk, output_fields=['id'],
                              consistency_level='Session')
        return [list(hits.ids) for hits in found]

    added, _ = seconds(add)
    search(queries[:1])
    searched, found = median_seconds(lambda: search(queries))
    single, _ = median_seconds(lambda: search(queries[:1]))
    client.close()
    return Run(added, searched, single, found)


def recall(found: list[list[str]], wanted: list[list[str]]) -> float:
    """The share of what an exact search finds."""
    return statistics.mean(len(set(a) & set(b)) / len(b)
                           for a, b in zip(found, wanted, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in dict(rows=20_000, width=128, queries=100, topk=10, repeat=3).items():
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
    results: dict[str, list[Run]] = {'ours': [], 'bare': []}
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(
            MilvusIndex(uri := args.uri or f'{folder}/benchmark.db', 'keeper')):  # one for all
        for _ in range(args.repeat):
            for side, run in (('ours', ours), ('bare', bare)):
                results[side].append(run(uri, f'{side}_{uuid.uuid4().hex[:8]}', rows, ids,
                                         queries, args.topk))
    print(f'{args.rows:,} rows of width {args.width}, {args.queries} queries, top {args.topk}')
    for work, count in (('insert', args.rows), ('search', args.queries), ('single', 1)):
        mine, theirs = (statistics.median(getattr(run, work) for run in results[side])
                        for side in ('ours', 'bare'))
        print(f'{work}: ours {mine:.4f} s ({count / mine:,.0f}/s), bare pymilvus {theirs:.4f} s '
              f'({count / theirs:,.0f}/s), ratio {mine / theirs:.2f}')
    for side, runs in results.items():
        print(f'recall@{args.topk} of {side}: {recall(runs[-1].found, wanted):.4f}')


if __name__ == '__main__':
    main()
