"""Where to cut a ranking without labels, against flat thresholds that know them and that do not.

    python benchmarks/small_sets.py data/small_sets emoji stamps icons glyphs
    retrieval prepare_copies data/copies
    python benchmarks/cut.py data/small_sets/emoji data/small_sets/stamps data/copies

Of a folder of classes, one picture of each is a query; the other pictures of half of the classes
are the gallery, so that half of the queries have no match. Of copies, the altered pictures are the
queries, and half of the photographs are the gallery, beside the distractors. The default encoder,
which has seen none of them. F1 counts pairs of a query and a result. ``flat, labels`` is the flat
threshold with the highest F1 on these very queries, the best that any flat one can be; ``flat,
0.95`` the default of find_duplicates.
``false`` is the share of the queries without a match that get a result. ``strangers`` are the other
half of the pictures without a match. ``coverage`` is of altered pictures, half of 1,000, the other
half calibrates; the gallery is of all pictures that are no altered ones themselves, the original
among them.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from retrieval import Gallery, ImageRetrievalInferencer
from retrieval.evaluation import MatchCalibration, calibrate_without_labels
from retrieval.search.alterations import encode_altered

RATES = (0.05, 0.1, 0.2)
COVERAGES = (0.8, 0.9, 0.95)


class Encoded(NamedTuple):
    """Embeddings ``(N, D)`` of a folder, its classes ``(N,)``, and altered ones with their rows."""

    vectors: torch.Tensor
    labels: np.ndarray
    queries: np.ndarray
    altered: torch.Tensor
    of: np.ndarray


def encoded(folder: Path, cache: Path) -> Encoded:
    """A folder by the default encoder; what was encoded is kept."""
    cache.mkdir(parents=True, exist_ok=True)
    inferencer = ImageRetrievalInferencer(None, folder, cache / f'{folder.name}.safetensors')
    gallery, kept = inferencer.model.gallery, cache / f'{folder.name}-altered.safetensors'
    names = [Path(name) for name in gallery.ids]
    labels = np.array([name.stem.split('--')[0] if name.parent.name == 'copies' else
                       name.stem if name.parent.name in ('photographs', 'distractors') else
                       name.parent.name for name in names])
    asked = np.array([name.parent.name == 'copies' for name in names])
    if not kept.exists():
        pictures = inferencer.gallery_dataset.get_subset(np.flatnonzero(~asked).tolist())
        encode_altered(inferencer.model, pictures).save(kept)
    altered = Gallery.load(kept)
    unit = torch.nn.functional.normalize(gallery.embeddings)
    return Encoded(unit, labels, asked, torch.nn.functional.normalize(altered.embeddings),
                   gallery.find(altered.ids))


class Split(NamedTuple):
    """Rows of the queries and of the gallery."""

    queries: np.ndarray
    gallery: np.ndarray


def split(data: Encoded, seed: int) -> Split:
    """Half of the classes in the gallery."""
    draw = np.random.default_rng(seed)
    classes = np.unique(data.labels[data.queries] if data.queries.any() else data.labels)
    outside = set(draw.permutation(classes)[:len(classes) // 2].tolist())
    inside = np.array([label not in outside for label in data.labels.tolist()])
    if data.queries.any():
        return Split(np.flatnonzero(data.queries), np.flatnonzero(~data.queries & inside))
    order = draw.permutation(len(data.labels))
    first = order[np.unique(data.labels[order], return_index=True)[1]]
    rest = np.setdiff1d(order, first)
    return Split(np.sort(first), rest[inside[rest]])


def f1(kept: np.ndarray, same: np.ndarray) -> float:
    """Of the pairs that are kept."""
    return 2 * float((kept & same).sum()) / max(1, int(kept.sum()) + int(same.sum()))


def best_flat(scores: np.ndarray, same: np.ndarray) -> float:
    """The highest F1 of one threshold."""
    right = np.cumsum(same.ravel()[np.argsort(-scores, axis=None)])
    return float((2 * right / (np.arange(1, len(right) + 1) + right[-1])).max())


def kept_by(calibration: MatchCalibration, scores: np.ndarray) -> np.ndarray:
    """Which results ``(Q, N)`` match, each query by its own ranking."""
    ranked = -np.sort(-scores, 1)[:, :calibration.depth]
    bars = [calibration.of_query(row).threshold for row in ranked]
    return scores >= np.array(bars)[:, None]


def reliability(calibration: MatchCalibration, scores: np.ndarray, same: np.ndarray) -> float:
    """The mean distance of probability and share of matches, in ten bins (ECE), over the first
    ten results.
    """
    order = np.argsort(-scores, 1)[:, :10]
    ranked = -np.sort(-scores, 1)
    sure = np.array([calibration.of_query(row[:30]).probability(row[:10]) for row in ranked])
    right = np.take_along_axis(same, order, 1)
    bins = np.minimum((10 * sure).astype(int), 9)
    return float(sum(abs(sure[bins == one].sum() - right[bins == one].sum())
                     for one in range(10)) / sure.size)


def measured(data: Encoded, seed: int) -> dict[str, float]:
    """Everything of one split."""
    queries, rows = split(data, seed)
    gallery = data.vectors[rows]
    scores = (data.vectors[queries] @ gallery.T).numpy().astype(np.float64)
    same = data.labels[queries][:, None] == data.labels[rows][None]
    none = np.flatnonzero(~same.any(1))
    flat = best_flat(scores, same)
    found = {'matches a query': same.sum(1)[same.any(1)].mean(), 'flat, labels': flat,
             'flat, 0.95': f1(scores >= 0.95, same)}
    auto = calibrate_without_labels(gallery)
    found['auto'] = f1(kept_by(auto, scores), same)
    found['ECE'] = reliability(auto, scores, same)
    draw = np.random.default_rng(seed).permutation(none)
    strangers, fresh = draw[:len(draw) // 2], draw[len(draw) // 2:]
    for rate in RATES:
        guessed = calibrate_without_labels(gallery, 'no_match', rate)
        found[f'false {rate}'] = kept_by(guessed, scores[none]).any(1).mean()
        found[f'F1 {rate}'] = f1(kept_by(guessed, scores), same)
        proved = calibrate_without_labels(gallery, 'no_match', rate,
                                          strangers=data.vectors[queries[strangers]])
        left = np.isin(np.arange(len(scores)), strangers, invert=True)
        found[f'strangers {rate}'] = kept_by(proved, scores[fresh]).any(1).mean()
        found[f'strangers F1 {rate}'] = f1(kept_by(proved, scores[left]), same[left])
    found.update(coverages(data, seed))
    return {name: float(value) for name, value in found.items()}


def coverages(data: Encoded, seed: int) -> dict[str, float]:
    """The shares of altered pictures that find their originals."""
    whole = np.flatnonzero(~data.queries)
    gallery, place = data.vectors[whole], np.searchsorted(whole, data.of)
    order = np.random.default_rng(seed).permutation(len(place))
    seen, unseen = order[:len(order) // 2], order[len(order) // 2:]
    scores = (data.altered[unseen] @ gallery.T).numpy().astype(np.float64)
    own = place[unseen][:, None] == np.arange(len(whole))
    found = {'altered': float(len(unseen))}
    for share in COVERAGES:
        made = calibrate_without_labels(gallery, 'coverage', share,
                                        altered=(data.altered[seen], place[seen]))
        found[f'coverage {share}'] = float(kept_by(made, scores)[own].mean())
    return found


def main() -> None:
    """Print a table, the mean of some splits."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('folders', type=Path, nargs='+')
    arguments.add_argument('--cache', type=Path, default=Path('work_dirs/cut'))
    arguments.add_argument('--splits', type=int, default=10)
    given = arguments.parse_args()
    columns = {}
    for folder in given.folders:
        data = encoded(folder, given.cache)
        runs = [measured(data, seed) for seed in range(given.splits)]
        columns[folder.name] = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    print('| | ' + ' | '.join(columns) + ' |\n' + '|---' * (len(columns) + 1) + '|')
    for name in next(iter(columns.values())):
        cells = [f'{column[name].mean():.3f} ± {column[name].std():.3f}'
                 for column in columns.values()]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    main()
