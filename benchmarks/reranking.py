"""Re-ranking: what it gains on Glyphs, and k-reciprocal re-ranking against the dense form.

    python benchmarks/reranking.py                        everything at full size
    python benchmarks/reranking.py --scale 0.2 dense      a fifth of the rows, one part
    python benchmarks/reranking.py gains --gallery FILE   the gains on a gallery with labels

The parts are ``gains`` (mAP before and after each reranker, leaving one out: on a PCA of the raw
pixels of the Glyphs test split, or on ``--gallery``, which ``tools/dump_prototype.py`` writes from
a checkpoint), ``dense`` (10,000 rows that are queries and gallery, against the published form with
its N x N float32 matrices) and ``joint`` (10,000 queries and 10,000 other rows, 20,000 nodes).
Times and memory are medians of fresh processes with the same number of threads; memory is what a
run adds to the process that holds the embeddings.
"""
from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import verdict
from torch import Tensor

DEPTH = 100  # ranks that must agree
STEPS: dict[str, list[dict[str, Any]]] = {
    'average query expansion': [dict(type='AverageQueryExpansion', top_n=2)],
    'alpha query expansion': [dict(type='AlphaQueryExpansion', top_n=5)],
    'database augmentation': [dict(type='DatabaseAugmentation', top_n=5)],
    'augmentation, then alpha expansion': [dict(type='DatabaseAugmentation', top_n=5),
                                           dict(type='AlphaQueryExpansion', top_n=5)],
    'k-reciprocal': [dict(type='KReciprocal')],
    'diffusion': [dict(type='Diffusion', k=10, query_k=3, truncation=500)],
    'SuperGlobal': [dict(type='SuperGlobalReranking', top_m=100, top_k=3)],
    'SuperGlobal, mean': [dict(type='SuperGlobalReranking', top_m=100, top_k=3, pooling='mean')],
}


def clustered(count: int, width: int = 512, classes: int = 2000, seed: int = 0) -> Tensor:
    """Unit vectors ``(count, width)`` float32 around class centres."""
    centres = torch.nn.functional.normalize(
        torch.randn(classes, width, generator=torch.Generator().manual_seed(99)), dim=1)
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    vectors = centres[torch.arange(count) % classes] + noise * (1.5 / width ** 0.5)
    return torch.nn.functional.normalize(vectors, dim=1)


def dense_k_reciprocal(queries: np.ndarray, gallery: np.ndarray | None, k1: int = 20, k2: int = 6,
                       weight: float = 0.3) -> np.ndarray:
    """Final distances ``(Q, N)`` as published implementations compute them: square float32
    matrices over all nodes, a full sort of every row, a loop over the nodes. Without a gallery the
    queries are the nodes.
    """
    nodes = queries if gallery is None else np.concatenate([queries, gallery])
    total, half = len(nodes), int(np.around(k1 / 2))
    distance = np.maximum(2 - 2 * (nodes @ nodes.T), 0).astype(np.float32)
    distance /= distance.max(axis=1, keepdims=True)
    order = np.argsort(distance, axis=1).astype(np.int32)
    encoding = np.zeros_like(distance)
    for node in range(total):
        own = _reciprocal(order, node, k1)
        members = [own]
        for candidate in own:
            theirs = _reciprocal(order, candidate, half)
            if len(np.intersect1d(theirs, own)) > 2 / 3 * len(theirs):
                members.append(theirs)
        together = np.unique(np.concatenate(members))
        weights = np.exp(-distance[node, together])
        encoding[node, together] = weights / weights.sum()
    if k2 > 1:
        averaged = np.zeros_like(encoding)
        for node in range(total):
            averaged[node] = encoding[order[node, :k2]].mean(axis=0)
        encoding = averaged
    holders = [np.flatnonzero(encoding[:, column]) for column in range(total)]
    jaccard = np.zeros((len(queries), total), np.float32)
    for query in range(len(queries)):
        shared = np.zeros(total, np.float32)
        for column in np.flatnonzero(encoding[query]):
            rows = holders[column]
            shared[rows] += np.minimum(encoding[query, column], encoding[rows, column])
        jaccard[query] = 1 - shared / (2 - shared)
    final = jaccard * (1 - weight) + distance[:len(queries)] * weight
    return final if gallery is None else final[:, len(queries):]


def _reciprocal(order: np.ndarray, node: int, k: int) -> np.ndarray:
    forward = order[node, :k + 1]
    return forward[(order[forward, :k + 1] == node).any(axis=1)]


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def one_side(part: str, side: str, queries: Tensor, gallery: Tensor | None) -> np.ndarray:
    """The first rows of every query, ``(Q, DEPTH)``; with the dense side also their distances."""
    from retrieval.rerank import KReciprocal, rerank
    if side == 'ours':
        own = torch.arange(len(queries)) if part == 'dense' else None
        found = rerank(queries, queries if gallery is None else gallery,
                       KReciprocal(joint=part == 'joint'), DEPTH, own_rows=own)
        return found.indices.numpy()
    final = dense_k_reciprocal(queries.numpy(), None if gallery is None else gallery.numpy())
    if part == 'dense':
        np.fill_diagonal(final, np.inf)
    return final


def child(part: str, side: str, scale: float, path: str) -> dict[str, Any]:
    """Run one side once in this process, and leave what it found in a file."""
    count = int(10000 * scale)
    queries = clustered(count, classes=max(2, int(2000 * scale)))
    gallery = clustered(count, classes=max(2, int(2000 * scale)), seed=1) if part == 'joint' \
        else None
    few = None if gallery is None else gallery[:200]
    one_side(part, side, queries[:200], few)  # imports and first calls are not what is measured
    before, start = resident(), time.perf_counter()
    result = one_side(part, side, queries, gallery)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(path, result)
    return {'seconds': seconds, 'memory': max(0, peak - before)}


def spawn(arguments: argparse.Namespace, *words: str) -> dict[str, Any]:
    """Run this script for one measurement in a fresh process."""
    command = [sys.executable, __file__, '--child', *words, '--threads', str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def agreement(ours: np.ndarray, final: np.ndarray) -> tuple[float, float]:
    """The share of queries whose first rows are the same, and how far apart in the dense form's
    distance two rows of one rank are where they differ.
    """
    same, apart = 0, 0.0
    for rows, distance in zip(ours, final, strict=True):
        wanted = np.argsort(distance, kind='stable')[:len(rows)]
        same += bool((rows == wanted).all())
        apart = max(apart, float(np.abs(distance[rows] - distance[wanted]).max()))
    return same / len(ours), apart


def against_dense(part: str, arguments: argparse.Namespace) -> bool:
    """Print one comparison; True where the values agree and the goals are met."""
    runs: dict[str, list[dict[str, Any]]] = {'ours': [], 'dense': []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            for side, done in runs.items():
                done.append(spawn(arguments, part, side, str(arguments.scale),
                                  f'{folder}/{side}.npy'))
        same, apart = agreement(np.load(f'{folder}/ours.npy'),
                                np.load(f'{folder}/dense.npy', mmap_mode='r'))
    seconds = {side: statistics.median(run['seconds'] for run in done)
               for side, done in runs.items()}
    memory = {side: statistics.median(run['memory'] for run in done) / 2 ** 20
              for side, done in runs.items()}
    ratio, share = seconds['ours'] / seconds['dense'], memory['ours'] / memory['dense']
    count = int(10000 * arguments.scale)
    print(f'\n{part}: k-reciprocal, {count:,} queries '
          f'{"among" if part == "dense" else "and"} {count:,} rows of width 512')
    print(f'  first {DEPTH} the same for {same:.2%} of the queries, elsewhere rows that are '
          f'{apart:.1e} apart at the most')
    work = f'k-reciprocal of {count:,} queries, {count:,} rows x 512'
    good = verdict(f'{work}: time', 'the published dense form', ratio, 0.2,
                   ours=f'{seconds["ours"]:.2f} s', theirs=f'{seconds["dense"]:.2f} s')
    good &= verdict(f'{work}: memory', 'the published dense form', share, 0.1,
                    ours=f'{memory["ours"]:.0f} MB', theirs=f'{memory["dense"]:.0f} MB')
    return good and apart <= 1e-5


def pixel_gallery() -> tuple[Tensor, Tensor]:
    """The first 64 principal components of the Glyphs test pictures, and their labels."""
    from retrieval.datasets import Glyphs
    glyphs = Glyphs(split='test')
    pixels = torch.from_numpy(glyphs.pictures()).flatten(1).float() / 255
    pixels -= pixels.mean(dim=0)
    _, directions = torch.linalg.eigh(pixels.T @ pixels)
    labels = torch.tensor([glyphs.get_data_info(row)['gt_label'] for row in range(len(glyphs))])
    return pixels @ directions[:, -64:], labels


def precisions(rows: Tensor, own: Tensor, labels: Tensor) -> Tensor:
    """The average precision of every query with a relevant row, from its full ranking
    ``(Q, N - 1)``; ``own (Q,)`` are the queries' labels.
    """
    relevant = labels[rows] == own[:, None]
    ranks = torch.arange(1, rows.shape[1] + 1)
    counts = relevant.sum(dim=1)
    total = (relevant.cumsum(dim=1) / ranks * relevant).sum(dim=1)
    return (total / counts)[counts > 0]


def mean_average_precision(gallery: Any, labels: Tensor, steps: list[dict[str, Any]]) -> float:
    """In percent, leaving one out, the queries in blocks: a ranking of all rows is wide."""
    from retrieval.rerank import rerank
    found = []
    for start in range(0, len(gallery), 1024):
        own = torch.arange(start, min(start + 1024, len(gallery)))
        rows = rerank(gallery.embeddings[own], gallery, steps, own_rows=own).indices
        found.append(precisions(rows, labels[own], labels))
    return 100 * float(torch.cat(found).double().mean())


def gains(arguments: argparse.Namespace) -> bool:
    """Print mAP before and after each reranker."""
    from retrieval.gallery import Gallery
    if arguments.gallery:
        given = Gallery.load(arguments.gallery)
        if given.labels is None:
            raise SystemExit(f'{arguments.gallery} has no labels to evaluate with.')
        vectors, labels, title = given.embeddings, given.labels, arguments.gallery
    else:
        vectors, labels = pixel_gallery()
        title = 'PCA of the pixels of Glyphs'
    keep = int(int(labels.max()) * arguments.scale)  # whole classes
    vectors, labels = vectors[labels <= keep], labels[labels <= keep]
    print(f'\ngains: {title}, {len(vectors):,} rows, cosine, leaving one out')
    gallery = Gallery(vectors)
    before, better = None, []
    for name, steps in [('the search alone', []), *STEPS.items()]:
        start = time.perf_counter()
        value = mean_average_precision(gallery, labels, steps)
        seconds = time.perf_counter() - start
        before = value if before is None else before
        better.append(value > before)
        print(f'  {name:36s} mAP {value:6.2f}  {value - before:+6.2f}  {seconds:7.1f} s',
              flush=True)
    return all(better[1:])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ['gains', 'dense', 'joint']
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'out of {", ".join(names)}')
    parser.add_argument('--scale', type=float, default=1.0, help='share of the rows')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--gallery', help='a gallery with labels, for gains')
    parser.add_argument('--child', nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        part, side, scale, path = arguments.child
        print(json.dumps(child(part, side, float(scale), path)))
        return
    unknown = set(arguments.parts) - set(names)
    if unknown:
        parser.error(f'unknown part {sorted(unknown)[0]!r}; there are {", ".join(names)}')
    print(f'torch {torch.__version__}, numpy {np.__version__}, {arguments.threads} threads, '
          f'medians of {arguments.repeats}')
    met = {name: gains(arguments) if name == 'gains' else against_dense(name, arguments)
           for name in arguments.parts or names}
    print('\n' + '  '.join(f'{name}: {"met" if good else "NOT MET"}' for name, good in met.items()))


if __name__ == '__main__':
    main()
