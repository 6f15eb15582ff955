"""Searching a gallery: ours against the matching of mmpretrain's retriever.

    python benchmarks/matching.py [--queries 64] [--rows 10000] [--width 512] [--topk -1]

Each side runs in a fresh process of its own, with the same threads and the same vectors; the order
is ours, peer, ours, peer, … so that a busy machine hits both. Printed are the medians, the memory
that a search takes beyond what was there before it, and the ratios. Where mmpretrain is not
installed its formula, ``torch.cosine_similarity`` of broadcast tensors and a full sort, is timed.
"""
from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from record import verdict


def vectors(queries: int, rows: int, width: int) -> tuple[Any, Any]:
    """The same queries and gallery in every process."""
    import torch
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(queries, width, generator=generator),
            torch.randn(rows, width, generator=generator))


def ours(queries: Any, gallery: Any, topk: int) -> Callable[[], Any]:
    """``predict`` of our retriever, with an encoder that passes its input through."""
    import torch

    from retrieval.retrievers import ImageToImageRetriever
    model = ImageToImageRetriever(torch.nn.Flatten(), gallery, topk=topk).eval()
    model.prepare_prototype()
    return lambda: torch.stack([sample.pred_label for sample in model.predict(queries)])


def peer(queries: Any, gallery: Any, topk: int) -> Callable[[], Any]:
    """``matching`` of mmpretrain's retriever, which always ranks the whole gallery."""
    import torch

    import retrieval.registry  # noqa: F401  (mends what mmpretrain's import needs)
    try:
        from mmpretrain.models import ImageToImageRetriever
    except ImportError:
        def matching() -> Any:
            scores = torch.cosine_similarity(queries[:, None], gallery[None], dim=-1)
            return torch.sort(scores, descending=True, dim=-1).indices
        return matching
    model = ImageToImageRetriever([dict(type='GlobalAveragePooling')], gallery)
    model.prototype_vecs = gallery
    return lambda: model.matching(queries)['pred_label']


def peak_memory() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(side: str, options: argparse.Namespace) -> None:
    """One side, in this process: prints its seconds, its memory and its first results."""
    import torch
    torch.set_num_threads(options.threads)
    queries, gallery = vectors(options.queries, options.rows, options.width)
    search = {'ours': ours, 'peer': peer}[side](queries, gallery, options.topk)
    with torch.no_grad():
        before = peak_memory()
        first = search()  # also warms up
        memory = peak_memory() - before
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            search()
            seconds.append(time.perf_counter() - start)
    print(json.dumps(dict(seconds=statistics.median(seconds), memory=memory,
                          first=first[:, :10].tolist())))


def main() -> None:
    """Run both sides and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (('queries', 64), ('rows', 10_000), ('width', 512), ('repeats', 5),
                        ('rounds', 3), ('threads', 2), ('topk', -1)):
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--side', choices=['ours', 'peer'], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options)
        return
    results: dict[str, list[dict[str, Any]]] = {'ours': [], 'peer': []}
    for _ in range(options.rounds):
        for side, found in results.items():
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--side', side],
                                  stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    report(results, options)


def report(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Print what was measured."""
    def median(side: str, what: str) -> float:
        return statistics.median(run[what] for run in results[side])
    same = results['ours'][0]['first'] == results['peer'][0]['first']
    print(f'{options.queries} queries, {options.rows} x {options.width}, topk {options.topk}, '
          f'{options.threads} threads; first ten results equal: {same}')
    for side in results:
        print(f'{side}: {1e3 * median(side, "seconds"):9.2f} ms   '
              f'{median(side, "memory"):9.1f} MiB extra')
    work, peer = f'predict, {options.queries} queries, {options.rows:,} x {options.width}, ' \
        f'topk={options.topk}', "mmpretrain's retriever"
    verdict(f'{work}: time', peer, median('ours', 'seconds') / median('peer', 'seconds'), 0.05,
            ours=f'{1e3 * median("ours", "seconds"):.1f} ms',
            theirs=f'{1e3 * median("peer", "seconds"):.0f} ms')
    verdict(f'{work}: memory', peer, median('ours', 'memory') / max(median('peer', 'memory'), 1e-9),
            0.05, ours=f'{median("ours", "memory"):.0f} MB',
            theirs=f'{median("peer", "memory"):.0f} MB')


if __name__ == '__main__':
    main()
