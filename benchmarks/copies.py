"""Copies that are found again: the default encoder against the perceptual hashes of ImageHash.

    pip install imagehash scikit-image
    retrieval prepare_copies data/copies
    python benchmarks/copies.py data/copies

Every altered copy is compared with every picture of the gallery. ``micro-AP`` is the average
precision of all pairs in one list, as in DISC21 (Douze et al., arXiv:2106.09672): one threshold
for all queries, and copies whose photograph is not in the gallery count against it. ``R@P90`` is
the largest recall at a precision of 90 percent in that list. Below is, by alteration, how often the
first result is the photograph, and how much of the pairs is found at the threshold of R@P90.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve

from retrieval import ImageRetrievalInferencer

HASHES = {'difference hash': imagehash.dhash, 'perceptual hash': imagehash.phash}


def encoded(queries: list[str], gallery: list[str]) -> np.ndarray:
    """The cosine of every query with every picture of the gallery, by the default encoder."""
    inferencer = ImageRetrievalInferencer(prototype=gallery)
    rows = inferencer.model.gallery.embeddings
    asked = ImageRetrievalInferencer(inferencer.model, queries, pipeline=inferencer.pipeline)
    return np.asarray(asked.model.gallery.embeddings @ rows.T)


def hashed(kind: str, queries: list[str], gallery: list[str]) -> np.ndarray:
    """The Hamming distances of 64-bit hashes, negative."""
    bits = [np.array([HASHES[kind](Image.open(path)).hash.ravel() for path in paths], np.float32)
            for paths in (queries, gallery)]
    return -np.abs(bits[0][:, None] - bits[1][None]).sum(-1)


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('folder', type=Path, help='what prepare_copies wrote')
    folder = arguments.parse_args().folder
    table = pd.read_csv(folder / 'copies.csv', dtype=str, keep_default_na=False)
    sides = [table[table[side] == 'True'] for side in ('is_query', 'is_gallery')]
    paths = [[str(folder / path) for path in side.path] for side in sides]
    same = sides[0].label.to_numpy()[:, None] == sides[1].label.to_numpy()[None]
    matched = same.any(1)
    print(f'{len(same)} copies, {np.count_nonzero(~matched)} of them without a match, against '
          f'{same.shape[1]} pictures')
    columns = {}
    print('| | micro-AP | R@P90 | first result right | pictures a second |\n|---|---|---|---|---|')
    for name in ('ours', *HASHES):
        began = time.monotonic()
        scores = encoded(*paths) if name == 'ours' else hashed(name, *paths)
        rate = sum(map(len, paths)) / (time.monotonic() - began)
        precision, recall, thresholds = precision_recall_curve(same.ravel(), scores.ravel())
        sound = np.flatnonzero(precision[:-1] >= 0.9)
        first = same[np.arange(len(same)), scores.argmax(1)]
        print(f'| {name} | {100 * average_precision_score(same.ravel(), scores.ravel()):.1f} '
              f'| {100 * recall[sound[0]] if len(sound) else 0:.1f} '
              f'| {100 * first[matched].mean():.1f} | {rate:.0f} |')
        threshold = thresholds[sound[0]] if len(sound) else np.inf
        found = (np.where(same, scores, -np.inf).max(1) >= threshold)
        columns[name] = pd.DataFrame(dict(first=first, found=found))[matched].groupby(
            sides[0].alteration.to_numpy()[matched]).mean() * 100
    print('\n| alteration | ' + ' | '.join(f'{name}: first, found' for name in columns) + ' |\n'
          + '|---' * (len(columns) + 1) + '|')
    for alteration in columns['ours'].index:
        cells = (f'{frame.loc[alteration, "first"]:.0f}, {frame.loc[alteration, "found"]:.0f}'
                 for frame in columns.values())
        print(f'| {alteration} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    main()
