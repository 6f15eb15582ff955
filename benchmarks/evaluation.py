"""Evaluation against named peers: time, memory and values, each run in a fresh process.

    python benchmarks/evaluation.py                      every case at full size
    python benchmarks/evaluation.py --scale 0.2 sop map  a fifth of the rows, two cases
    python benchmarks/evaluation.py growth --plot growth.png
    python benchmarks/evaluation.py million              a million rows: a quarter of an hour

Every figure is the median of ``--repeats`` runs, ours and the peer's in turn, with the same number
of threads. Memory is what a run adds to the process that holds the embeddings.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import verdict
from torch import Tensor

PML_NAMES = {'Precision@1': 'precision_at_1', 'R-Precision': 'r_precision',
             'MAP@R': 'mean_average_precision_at_r', 'mAP': 'mean_average_precision'}
Data = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Side = Callable[[Data], dict[str, float]]


def clustered(count: int, width: int, classes: int, seed: int = 0, noise: float = 1.0) -> tuple[
        Tensor, Tensor]:
    """Unit vectors ``(count, width)`` float32 around class centres, and sorted labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(
        torch.randn(classes, width, generator=torch.Generator().manual_seed(99)), dim=1)
    spread = torch.arange(count) % classes
    labels = torch.sort(spread).values
    vectors = torch.randn(count, width, generator=generator).mul_(noise / width ** 0.5)
    for start in range(0, count, 4096):
        vectors[start:start + 4096] += centres[labels[start:start + 4096]]
    return vectors.div_(vectors.norm(dim=1, keepdim=True)), labels


def alone(count: int, width: int, classes: int, noise: float = 1.5) -> Callable[[float], Data]:
    """A set that is evaluated by leaving one out, at a scale of its rows."""
    def make(scale: float) -> Data:
        vectors, labels = clustered(int(count * scale), width, max(2, int(classes * scale)),
                                    noise=noise)
        return vectors, labels, None, None
    return make


def few_classes(scale: float) -> Data:
    """Ten large classes, however small the scale."""
    vectors, labels = clustered(int(20000 * scale), 128, 10, noise=3.0)
    return vectors, labels, None, None


def query_and_gallery(scale: float) -> Data:
    """In-Shop's numbers: 14,218 queries, 12,612 gallery rows, 3,985 classes."""
    classes = max(2, int(3985 * scale))
    queries, labels = clustered(int(14218 * scale), 512, classes, 1, 2.4)
    gallery, theirs = clustered(int(12612 * scale), 512, classes, 2, 2.4)
    return queries, labels, gallery, theirs


def ours(names: tuple[str, ...], average: str = 'micro') -> Side:
    """Our evaluation."""
    from retrieval.evaluation import evaluate

    def run(data: Data) -> dict[str, float]:
        vectors, labels, gallery, theirs = data
        found = evaluate(vectors, labels, gallery, theirs, names, 'inner_product', average)
        return {name: found[name] for name in names}
    return run


def accuracy_calculator(names: tuple[str, ...], k: Any, average: str = 'micro') -> Side:
    """``AccuracyCalculator`` of pytorch-metric-learning."""
    def run(data: Data) -> dict[str, float]:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        peer = AccuracyCalculator(tuple(PML_NAMES[name] for name in names), k=k,
                                  avg_of_avgs=average == 'macro', device=torch.device('cpu'))
        found = peer.get_accuracy(data[0], data[1])
        return {name: 100 * float(found[PML_NAMES[name]]) for name in names}
    return run


def full_sort(data: Data) -> dict[str, float]:
    """Recall by one product and a sort of everything."""
    queries, labels, gallery, theirs = data
    assert gallery is not None and theirs is not None
    order = (queries @ gallery.T).argsort(dim=1, descending=True)
    found = theirs[order] == labels[:, None]
    return {f'Recall@{k}': 100 * float(found[:, :k].any(dim=1).double().mean())
            for k in (1, 10, 100, 1000)}


def bare_product(data: Data) -> dict[str, float]:
    """The physical limit: seconds of the product alone, the faster of torch's and faiss top-1."""
    import faiss

    queries, _, gallery, _ = data
    rows = queries if gallery is None else gallery
    faiss.omp_set_num_threads(torch.get_num_threads())

    def by_torch() -> None:
        for start in range(0, len(queries), 4096):  # the whole matrix may not fit into memory
            queries[start:start + 4096] @ rows.T

    def by_faiss() -> None:
        faiss.knn(queries.numpy(), rows.numpy(), 1, metric=faiss.METRIC_INNER_PRODUCT)

    times: dict[str, list[float]] = {'torch': [], 'faiss': []}
    for _ in range(3):
        for name, way in (('torch', by_torch), ('faiss', by_faiss)):
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


RECALLS = ('Recall@1', 'Recall@10', 'Recall@100', 'Recall@1000')
AT_R = ('Precision@1', 'R-Precision', 'MAP@R')


@dataclass(frozen=True)
class Case:
    """One comparison: the data, the two sides, and what is aimed at."""

    title: str
    data: Callable[[float], Data]
    peer: Side
    own: Callable[[], Side]
    time: float
    memory: float | None = None
    megabytes: float | None = None


CASES = {
    'sop': Case('leave-one-out, 60,502 x 512, 11,316 classes: P@1, R-Precision, MAP@R',
                alone(60502, 512, 11316, 2.2), accuracy_calculator(AT_R, 'max_bin_count'),
                lambda: ours(AT_R), 0.35, megabytes=500),
    'narrow': Case('leave-one-out, 24,000 x 256, 4,500 classes: P@1, R-Precision, MAP@R',
                   alone(24000, 256, 4500, 1.8), accuracy_calculator(AT_R, 'max_bin_count'),
                   lambda: ours(AT_R), 0.5),
    'macro': Case('leave-one-out, 60,502 x 512, 11,316 classes, macro means',
                  alone(60502, 512, 11316, 2.2),
                  accuracy_calculator(AT_R, 'max_bin_count', 'macro'),
                  lambda: ours(AT_R, 'macro'), 0.5),
    'map': Case('leave-one-out, 10,000 x 128, 2,000 classes: mAP of the full ranking',
                alone(10000, 128, 2000), accuracy_calculator(('mAP',), None),
                lambda: ours(('mAP',)), 0.05, 0.05),
    'large': Case('leave-one-out, 20,000 x 128, 10 classes: P@1, R-Precision, MAP@R',
                  few_classes, accuracy_calculator(AT_R, 'max_bin_count'), lambda: ours(AT_R), 0.3),
    'recall': Case('query and gallery, 14,218 x 12,612 x 512: R@1/10/100/1000',
                   query_and_gallery, full_sort, lambda: ours(RECALLS), 0.25),
}


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def child(case: Case, side: str, scale: float) -> dict[str, Any]:
    """Run one side once in this process."""
    data = case.data(scale)
    if side == 'limit':
        return {'seconds': min(bare_product(data).values())}
    run = case.own() if side == 'ours' else case.peer
    small = case.data(min(scale, 0.01) if scale > 0.02 else scale)
    run(small)  # imports and first calls are not what is measured
    before, start = resident(), time.perf_counter()
    values = run(data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {'seconds': seconds, 'memory': max(0, peak - before), 'values': values}


def spawn(arguments: argparse.Namespace, *words: str) -> dict[str, Any]:
    """Run this script for one measurement in a fresh process."""
    command = [sys.executable, __file__, '--child', *words, '--threads', str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, arguments: argparse.Namespace) -> bool:
    """Print one case; True where the values agree and the goals are met."""
    case = CASES[name]
    runs: dict[str, list[dict[str, Any]]] = {'ours': [], 'peer': []}
    for _ in range(arguments.repeats):
        for side, done in runs.items():
            done.append(spawn(arguments, name, side, str(arguments.scale)))
    seconds = {side: statistics.median(run['seconds'] for run in done)
               for side, done in runs.items()}
    memory = {side: statistics.median(run['memory'] for run in done) / 2 ** 20
              for side, done in runs.items()}
    limit = spawn(arguments, name, 'limit', str(arguments.scale))['seconds']
    values = {side: done[0]['values'] for side, done in runs.items()}
    apart = max(abs(values['ours'][key] - values['peer'][key]) / 100 for key in values['ours'])
    ratio, share = seconds['ours'] / seconds['peer'], memory['ours'] / max(memory['peer'], 1)
    goals = [apart <= 1e-6, ratio <= case.time, case.memory is None or share <= case.memory,
             case.megabytes is None or memory['ours'] <= case.megabytes]
    print(f'\n{name}: {case.title}' + (f' (scale {arguments.scale})' if arguments.scale != 1
                                       else ''))
    print('  ' + '  '.join(f'{key} {value:.4f}' for key, value in values['ours'].items())
          + f'   largest difference {apart:.1e}')
    peer = 'torch, a product and a full sort' if name == 'recall' else 'pytorch-metric-learning'
    verdict(f'{case.title}: time', peer, ratio, case.time, ours=f'{seconds["ours"]:.2f} s',
            theirs=f'{seconds["peer"]:.2f} s')
    verdict(f'{case.title}: memory', peer, share, case.memory, ours=f'{memory["ours"]:.0f} MB',
            theirs=f'{memory["peer"]:.0f} MB')
    print(f'  time   {seconds["ours"] / limit:8.2f} of the bare product, {limit:.2f} s', flush=True)
    return all(goals)


def product(scale: float, repeats: int) -> dict[str, float]:
    """Our top-100 and the bare product, in turn in one process: medians in seconds."""
    import faiss

    from retrieval.ranking import topk

    queries, _, gallery, _ = query_and_gallery(scale)
    assert gallery is not None
    faiss.omp_set_num_threads(torch.get_num_threads())
    ways: dict[str, Callable[[], Any]] = {
        'torch product': lambda: queries @ gallery.T,
        'faiss top-1': lambda: faiss.knn(queries.numpy(), gallery.numpy(), 1,
                                         metric=faiss.METRIC_INNER_PRODUCT),
        'ours top-100': lambda: topk(queries, gallery, 100, 'inner_product')}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def compare_product(arguments: argparse.Namespace) -> bool:
    """Print our top-100 against the physical limit."""
    times = spawn(arguments, 'product', str(arguments.repeats), str(arguments.scale))
    limit = min(times['torch product'], times['faiss top-1'])
    ratio = times['ours top-100'] / limit
    print('\nproduct: top-100 by query and gallery against the faster bare product, interleaved')
    return verdict('top-100, 14,218 x 12,612 x 512: time', 'the faster bare product', ratio, 1.3,
                   ours=f'{times["ours top-100"]:.2f} s', theirs=f'{limit:.2f} s')


def growth(arguments: argparse.Namespace) -> bool:
    """Print and plot time and memory of leave-one-out over the number of rows."""
    sizes = [int(size * arguments.scale) for size in (10000, 20000, 40000, 80000)]
    print('\ngrowth: leave-one-out, 128 columns, 5 rows a class: P@1, R-Precision, MAP@R')
    found = [spawn(arguments, 'growth', str(size), '1') for size in sizes]
    for size, run in zip(sizes, found, strict=True):
        print(f'  {size:7d} rows  {run["seconds"]:8.2f} s  {run["memory"] / 2 ** 20:8.0f} MB',
              flush=True)
    if arguments.plot:
        plot_growth(sizes, [run['seconds'] for run in found],
                    [run['memory'] / 2 ** 20 for run in found], arguments.plot)
    return True


def million(arguments: argparse.Namespace) -> bool:
    """Print time and memory of leave-one-out over a million rows, which no peer finishes here."""
    size = int(1_000_000 * arguments.scale)
    print(f'\nmillion: leave-one-out, {size:,} x 128, {size // 10:,} classes: P@1, R-Precision, '
          'MAP@R')
    run = spawn(arguments, 'million', str(size), '1')
    print('  ' + '  '.join(f'{key} {value:.4f}' for key, value in run['values'].items()))
    held = run['memory'] + size * 128 * 4
    return verdict(f'leave-one-out, {size:,} x 128, {size // 10:,} classes: memory with the rows',
                   '4 GB', held / 4e9, 1, ours=f'{held / 1e9:.2f} GB, {run["seconds"]:.0f} s',
                   theirs='4 GB')


def plot_growth(sizes: list[int], seconds: list[float], megabytes: list[float], path: str) -> None:
    """Draw time and memory over the number of rows."""
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    left.loglog(sizes, seconds, 'o-')
    right.plot(sizes, megabytes, 'o-')
    for axes in (left, right):
        axes.set_xticks(sizes, [f'{size // 1000}k' for size in sizes])
        axes.minorticks_off()
    left.set_yticks([0.25, 0.5, 1, 2, 4, 8], ['0.25', '0.5', '1', '2', '4', '8'])
    left.set(xlabel='rows', ylabel='seconds')
    right.set(xlabel='rows', ylabel='MB beside the embeddings', ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path)


def run_child(words: list[str]) -> dict[str, Any]:
    """What ``--child`` asks for."""
    name, first, scale = words[0], words[1], float(words[2])
    if name == 'product':
        return product(scale, int(first))
    if name in ('growth', 'million'):
        size = int(first)
        classes, noise = (size // 5, 1.5) if name == 'growth' else (size // 10, 1.8)
        data = alone(size, 128, classes, noise)
        return child(Case('', data, full_sort, lambda: ours(AT_R), 0), 'ours', 1.0)
    return child(CASES[name], first, scale)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    others = {'product': compare_product, 'growth': growth, 'million': million}
    names = [*CASES, *others]
    parser.add_argument('cases', nargs='*', metavar='CASE', help=f'out of {", ".join(names)}')
    parser.add_argument('--scale', type=float, default=1.0, help='share of the rows')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--plot', help='where to draw the growth')
    parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(json.dumps(run_child(arguments.child)))
        return
    unknown = set(arguments.cases) - set(names)
    if unknown:
        parser.error(f'unknown case {sorted(unknown)[0]!r}; there are {", ".join(names)}')
    print(f'torch {torch.__version__}, numpy {np.__version__}, {arguments.threads} threads, '
          f'medians of {arguments.repeats}')
    met = {}
    for name in arguments.cases or names:
        met[name] = others[name](arguments) if name in others else compare(name, arguments)
    print('\n' + '  '.join(f'{name}: {"met" if good else "NOT MET"}' for name, good in met.items()))


if __name__ == '__main__':
    main()
