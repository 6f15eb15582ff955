"""``InferenceModel`` that is trained and asked: ours against pytorch-metric-learning's.

    python benchmarks/inference_model.py [--rows 50000] [--queries 1000] [--width 512] [--k 10]

The trunk passes its input through, so that what is timed is what the class does itself: taking the
inputs apart, normalising, indexing and searching. Each side runs in fresh processes of its own,
with the same threads and the same vectors, the sides by turns, so that a busy machine hits both.
Printed are the medians, the memory that training and asking take beyond what was there before
(the inputs are), and the ratios. The goals are 1.05 for both.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from record import verdict

GOAL = 1.05


def vectors(options: argparse.Namespace) -> tuple[Any, Any]:
    """The same rows and queries in every process."""
    import torch
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(options.rows, options.width, generator=generator),
            torch.randn(options.queries, options.width, generator=generator))


def model_of(side: str) -> Any:
    """An inference model with a trunk that passes its input through."""
    import torch
    if side == 'ours':
        from retrieval.inference import InferenceModel
        return InferenceModel(torch.nn.Identity())
    import retrieval.registry  # noqa: F401, I001  (mends what the peer's imports need)
    from pytorch_metric_learning.utils.inference import InferenceModel as Peer
    return Peer(torch.nn.Identity())


def peak_memory() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(side: str, options: argparse.Namespace) -> None:
    """One side, in this process: prints its seconds, its memory and what it found."""
    import torch
    torch.set_num_threads(options.threads)
    rows, queries = vectors(options)
    model = model_of(side)
    model.train_knn(rows[:256])  # imports and warms up
    model.get_nearest_neighbors(queries[:32], options.k)
    before = peak_memory()
    start = time.perf_counter()
    model.train_knn(rows)
    trained = time.perf_counter()
    _, found = model.get_nearest_neighbors(queries, options.k)
    asked = time.perf_counter()
    memory = peak_memory() - before
    again = []
    for _ in range(options.repeats):
        begun = time.perf_counter()
        model.get_nearest_neighbors(queries, options.k)
        again.append(time.perf_counter() - begun)
    print(json.dumps(dict(
        train=trained - start, first=asked - trained, ask=statistics.median(again),
        together=trained - start + statistics.median(again), memory=memory,
        found=found[:, :10].tolist())))


def main() -> None:
    """Run both sides and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (('rows', 50_000), ('queries', 1000), ('width', 512), ('k', 10),
                        ('repeats', 5), ('rounds', 5), ('threads', 2)):
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--side', choices=['ours', 'peer'], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options)
        return
    results: dict[str, list[dict[str, Any]]] = {'ours': [], 'peer': []}
    threads = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    for _ in range(options.rounds):
        for side, found in results.items():
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--side', side],
                                  stdout=subprocess.PIPE, text=True, check=True, env=threads)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    report(results, options)


def report(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Print what was measured."""
    def median(side: str, what: str) -> float:
        return statistics.median(run[what] for run in results[side])

    pairs = zip(results['ours'][0]['found'], results['peer'][0]['found'], strict=True)
    equal = statistics.mean(mine == theirs for mine, theirs in pairs)
    print(f'{options.rows} x {options.width} rows, {options.queries} queries, k {options.k}, '
          f'{options.threads} threads, {options.rounds} processes a side; '
          f'queries with equal results: {equal:.1%}')
    for side in results:
        print(f'{side}: train {1e3 * median(side, "train"):8.1f} ms   ask '
              f'{1e3 * median(side, "ask"):8.1f} ms (first {1e3 * median(side, "first"):8.1f} ms)'
              f'   memory {median(side, "memory"):7.1f} MiB')
    for what in ('train', 'ask', 'together', 'memory'):
        ratio = median('ours', what) / max(median('peer', what), 1e-9)
        unit, scale = ('MiB', 1) if what == 'memory' else ('ms', 1e3)
        verdict(f'InferenceModel, {options.rows:,} x {options.width}, {options.queries:,} queries: '
                f'{what}', 'pytorch-metric-learning', ratio,
                GOAL if what in ('together', 'memory') else None,
                ours=f'{scale * median("ours", what):.0f} {unit}',
                theirs=f'{scale * median("peer", what):.0f} {unit}')


if __name__ == '__main__':
    main()
