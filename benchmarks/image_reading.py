"""Reading images for a model: ours against the plain loop of PIL, torchvision and ``DataLoader``.

    python benchmarks/image_reading.py                          every case
    python benchmarks/image_reading.py test --images 300 --repeats 1
    python benchmarks/image_reading.py test --width 1600 --height 1200 --images 300 --min-edge 256

Photo-like JPEG files are drawn first (quality 90), in ``--folder`` or a temporary folder. Each side
goes through them in a fresh process, once to warm up and once timed, ours and the peer's in turn;
printed are medians. Both pipelines end in a batch ``(B, 3, 224, 224)``: ``float`` ones are made by
``ToTensor`` and by our data preprocessor, ``uint8`` ones by ``PILToTensor`` and our collating.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, features
from PIL import __version__ as pillow_version
from record import verdict

import retrieval.registry  # noqa: F401  (lets torchvision's import pass beside a CPU torch)

CASES = ('test', 'train')
KINDS = ('float', 'uint8')
SIDES = ('ours', 'peer')


def photo(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A picture ``(height, width, 3)`` uint8 of gradients, shapes, and texture of all scales."""
    size = (width, height)
    image = cv2.resize(rng.uniform(0, 255, (4, 5, 3)).astype(np.float32), size,
                       interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        layer = image.copy()
        colour = rng.uniform(0, 255, 3).tolist()
        centre = rng.integers(0, size)
        if rng.random() < 0.5:
            axes = rng.integers(width // 40, width // 5, 2).tolist()
            cv2.ellipse(layer, centre.tolist(), axes, float(rng.uniform(0, 180)), 0, 360, colour,
                        -1, cv2.LINE_AA)
        else:
            corners = centre + rng.integers(-width // 5, width // 5, (4, 2))
            cv2.fillPoly(layer, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        share = float(rng.uniform(0.4, 1))
        image = share * layer + (1 - share) * image
    image = cv2.GaussianBlur(image, (0, 0), 0.7)
    for step in (1, 2, 4, 8, 16):
        noise = rng.standard_normal((-(-height // step), -(-width // step))).astype(np.float32)
        grown = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
        image = image + 5 * grown[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_files(folder: Path, options: argparse.Namespace) -> list[Path]:
    """The files, ten folders of them; those that are there are kept."""
    paths = []
    for number in range(options.images):
        path = folder / f'class{number % 10}' / f'{number:05}.jpg'
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = photo(np.random.default_rng(number), options.width, options.height)
            Image.fromarray(drawn).save(path, quality=90)
        paths.append(path)
    return paths


def peer(case: str, options: argparse.Namespace) -> Any:
    """torchvision's ``ImageFolder`` and transforms in a ``DataLoader``."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    steps = {'test': [transforms.Resize(256), transforms.CenterCrop(224)],
             'train': [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]}[case]
    last = transforms.ToTensor() if options.kind == 'float' else transforms.PILToTensor()
    dataset = datasets.ImageFolder(options.folder, transforms.Compose([*steps, last]))
    return DataLoader(dataset, options.batch, case == 'train', num_workers=options.workers,
                      persistent_workers=options.workers > 0)


def pipeline(case: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Our usual pipelines, as in ``configs/_base_/datasets/image_folder_224.py``."""
    load = dict(type='retrieval.LoadImage', decoder=options.decoder, min_edge=options.min_edge)
    pack = dict(type='retrieval.PackInputs')
    if case == 'test':
        return [load, dict(type='retrieval.ResizeEdge', scale=256),
                dict(type='CenterCrop', crop_size=224), pack]
    return [load, dict(type='retrieval.RandomResizedCrop', scale=224),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'), pack]


def ours(case: str, options: argparse.Namespace) -> Any:
    """The dataloader of a config, as the runner builds it."""
    from mmengine.runner import Runner
    return Runner.build_dataloader(dict(
        batch_size=options.batch, num_workers=options.workers,
        persistent_workers=options.workers > 0,
        dataset=dict(type='retrieval.ImageFolder', data_root=str(options.folder),
                     pipeline=pipeline(case, options)),
        sampler=dict(type='DefaultSampler', shuffle=case == 'train'),
        collate_fn=dict(type='retrieval.image_collate')), seed=0)


def batches(side: str, case: str, options: argparse.Namespace) -> Callable[[], Iterator[Any]]:
    """What makes the batches of one pass, each a tensor ``(B, 3, 224, 224)``."""
    if side == 'peer':
        loader = peer(case, options)
        return lambda: (images for images, _ in loader)
    loader = ours(case, options)
    if options.kind == 'uint8':
        return lambda: (batch['inputs'] for batch in loader)
    from retrieval.encoders import RetrievalDataPreprocessor
    preprocessor = RetrievalDataPreprocessor(mean=[0.0], std=[255.0])
    return lambda: (preprocessor(batch)['inputs'] for batch in loader)


def child(side: str, case: str, options: argparse.Namespace) -> None:
    """One side, in this process: prints the images per second of the second pass, and the
    processor's milliseconds for an image (without the workers').
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    one_pass = batches(side, case, options)
    for count, _ in enumerate(one_pass(), 1):
        if count * options.batch >= 256 and not options.workers:
            break
    seen, start, busy = 0, time.perf_counter(), time.process_time()
    for images in one_pass():
        assert images.shape[1:] == (3, 224, 224)
        assert images.dtype == (torch.float32 if options.kind == 'float' else torch.uint8)
        seen += len(images)
    print(json.dumps(dict(rate=seen / (time.perf_counter() - start),
                          busy=1e3 * (time.process_time() - busy) / seen)))


def differences(paths: list[Path], options: argparse.Namespace) -> None:
    """Print how far the pixels of both sides are apart, decoded and at the end of ``test``."""
    from torchvision import transforms

    from retrieval.datasets import build_pipeline, read_image
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    steps = build_pipeline(pipeline('test', options))
    decoded, largest, total = 0, 0, 0.0
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert('RGB')
        want = np.asarray(image).astype(int)
        decoded = max(decoded, int(np.abs(read_image(path, decoder=options.decoder) - want).max()))
        packed = steps({'img_path': str(path)})['inputs'].permute(1, 2, 0).numpy()
        apart = np.abs(packed - np.asarray(theirs(image)).astype(int))
        largest, total = max(largest, int(apart.max())), total + float(apart.mean())
    print(f'largest difference of decoded pixels {decoded}; at the end of the test pipeline '
          f'{largest}, on average {total / len(paths):.3f} (grey values, {len(paths)} files)')


def compare(case: str, options: argparse.Namespace) -> None:
    """Print the images per second of both sides, and their ratio."""
    for kind in options.kinds:
        for workers in options.workers_list:
            found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
            for _ in range(options.repeats):
                for side, done in found.items():
                    done.append(spawn(side, case, kind, workers, options))
            ours, theirs = (statistics.median(run['rate'] for run in found[side])
                            for side in SIDES)
            busy = [statistics.median(run['busy'] for run in found[side]) for side in SIDES]
            verdict(f'reading JPEG files of {options.width} x {options.height}, {case} pipeline, '
                    f'to {kind}, {workers} workers: rate', 'Pillow and torchvision', ours / theirs,
                    ours=f'{ours:.0f}/s', theirs=f'{theirs:.0f}/s')
            print(f'    the main process works {busy[0]:.2f} ms an image, {busy[1]:.2f}')


def spawn(side: str, case: str, kind: str, workers: int,
          options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, case, '--child', side, '--kind', kind,
               '--workers', str(workers), '--folder', str(options.folder),
               '--batch', str(options.batch), '--decoder', options.decoder]
    if options.min_edge is not None:
        command += ['--min-edge', str(options.min_edge)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cases', nargs='*', metavar='case', help='test, train (both)')
    for name, value in (('images', 2000), ('width', 500), ('height', 375), ('batch', 64),
                        ('repeats', 5)):
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--folder', help='where the files are drawn and kept')
    parser.add_argument('--decoder', default='opencv', help='ours: opencv or pillow')
    parser.add_argument('--min-edge', type=int, help='ours: LoadImage(min_edge=…)')
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--workers-list', nargs='+', type=int, default=[0, 2])
    parser.add_argument('--kind', default='float', help=argparse.SUPPRESS)
    parser.add_argument('--workers', type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument('--child', choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f'unknown case {sorted(unknown)[0]!r}: choose from {", ".join(CASES)}')
    return options


def main() -> None:
    """Draw the files and compare every case."""
    options = parsed()
    if options.child:
        child(options.child, options.cases[0], options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = Path(options.folder or temporary)
        paths = draw_files(options.folder, options)
        mean = sum(path.stat().st_size for path in paths) / len(paths)
        turbo = features.version('libjpeg_turbo')
        print(f'{len(paths)} JPEG files of {options.width} x {options.height}, {mean / 1e3:.0f} kB '
              f'each; ours decodes with {options.decoder} (OpenCV {cv2.__version__}), min_edge '
              f'{options.min_edge}; the peer with Pillow {pillow_version} (libjpeg-turbo '
              f'{turbo}); torch {torch.__version__}, one thread a process')
        differences(paths[:200], options)
        for case in options.cases or CASES:
            compare(case, options)


if __name__ == '__main__':
    main()
