"""Exported encoders against torch: parity, ranks, and images a second, as a table.

    python benchmarks/exported_encoders.py --pictures FOLDER             the default encoder
    python benchmarks/exported_encoders.py CONFIG CHECKPOINT             on the config's pictures

Every format and precision is exported into a temporary folder by `retrieval export`. Rates are of
one thread, of the processor's time (not the wall clock), over batches of ``--batch`` images in
memory, best of five, torch and the exports in turn: what else the machine does matters less so.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.commands.export import main as export
from retrieval.export.formats import PixelEncoder, open_encoder
from retrieval.retrievers import build_retriever
from retrieval.runs.named_model import named_model

CASES = (('onnx', 'fp32'), ('onnx', 'fp16'), ('onnx', 'int8'), ('openvino', 'fp32'),
         ('openvino', 'int8'), ('torchscript', 'fp32'))


def rates(encoders: dict[str, Callable[[np.ndarray], Any]],
          images: np.ndarray) -> dict[str, float]:
    """Images a second of the processor's time, by encoder."""
    best = dict.fromkeys(encoders, 0.0)
    for turn in range(6):
        for name, encode in encoders.items():
            start = time.process_time()
            encode(images)
            if turn:  # the first warms up
                best[name] = max(best[name], len(images) / (time.process_time() - start))
    return best


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('config', nargs='?')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--encoder', default='efficientnet-lite0')
    parser.add_argument('--pictures')
    parser.add_argument('--batch', type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = [arguments.config, arguments.checkpoint] if arguments.config else \
        ['--encoder', arguments.encoder]
    model, checkpoint = named_model(arguments.config, arguments.checkpoint,
                                    None if arguments.config else arguments.encoder)
    module = PixelEncoder(build_retriever(model, checkpoint, device='cpu'))

    def by_torch(images: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images))

    encoders: dict[str, Callable[[np.ndarray], Any]] = {'torch': by_torch}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime, precision in CASES:
            out = Path(folder, f'{runtime}-{precision}')
            pictures = ['--pictures', arguments.pictures] if arguments.pictures else []
            export([*named, str(out), '--format', runtime, '--precision', precision, *pictures])
            manifest = json.loads((out / 'export.json').read_text())
            size = sum(path.stat().st_size for path in out.glob('encoder.*')) / 1e6
            encoders[out.name] = open_encoder(out / manifest['file'])
            rows[out.name] = size, manifest['parity']
        shape = (arguments.batch, *manifest['image'])
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        found = rates(encoders, images)
    print(f'\ntorch: {found["torch"]:.1f} images a second; {rows["onnx-fp32"][1]["pictures"]} '
          f'pictures (int8: {rows["onnx-int8"][1]["pictures"]})\n')
    print('| format, precision | MB | least cosine | first result another | first 10 in common '
          '| Recall@1 | mAP | speed / torch |')
    print('|---|---|---|---|---|---|---|---|')
    for name, (size, parity) in rows.items():
        recall, precision = ('{:.2f} → {:.2f}'.format(*parity['metrics'][metric])
                             if parity['metrics'] else '' for metric in ('Recall@1', 'mAP'))
        print(f'| {name.replace("-", ", ")} | {size:.1f} | {parity["least_cosine"]:.6f} '
              f'| {100 * parity["changed_first"]:.2f} % | {100 * parity["overlap"]:.2f} % '
              f'| {recall} | {precision} | {found[name] / found["torch"]:.2f} |')


if __name__ == '__main__':
    main()
