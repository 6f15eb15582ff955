"""What a command costs before it does its work: seconds until it is done, against bare imports.

    python benchmarks/startup.py                       with five runs of each
    python benchmarks/startup.py --runs 3 --pictures 100

Coloured pictures are drawn into a temporary folder, which is encoded by the default encoder and by
its export for ONNX. Then each line is a fresh process, the lines in turn; printed are medians of
the wall clock and of the processor's time (user and system), and the latter over that of
``import torch``. On a busy machine the processor's time says more. ``one product`` is how rclip
searches: one process, one encoder (the same ONNX model), one matrix product, nothing checked and
nothing drawn. ``train`` is one iteration of a backbone that is as small as can be, from its config
to its checkpoint; above it stands a bare program with the same libraries, model, loss and step.
"""
from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
ONE_PRODUCT = '''
import sys, numpy as np
from retrieval.exported_encoder import ExportedEncoder
from PIL import Image
encoder = ExportedEncoder(sys.argv[1])
rows, names = np.load(sys.argv[2]), open(sys.argv[3]).read().split()
pixels = encoder.pixels(np.asarray(Image.open(sys.argv[4]).convert('RGB')))[None]
scores = rows @ encoder.model(pixels)[0]
print([names[row] for row in np.argsort(-scores)[:10]])
'''
BARE = '''
import torch, timm, mmengine.runner, mmcv.transforms
from pytorch_metric_learning.losses import ArcFaceLoss
model = timm.create_model('resnet10t', num_classes=0, stem_width=8, channels=(8, 8, 8, 8))
loss = ArcFaceLoss(2, 8)
optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()])
loss(model(torch.rand(8, 3, 32, 32)), torch.arange(8) % 2).backward()
optimizer.step()
'''
CONFIG = '''
default_scope = 'retrieval'
train_dataloader = dict(
    batch_size=8, num_workers=0, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageFolder', data_root='pictures', split='train', pipeline=[
        dict(type='LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]))
model = dict(
    type='ImageToImageRetriever',
    image_encoder=dict(type='ImageEncoder', backbone=dict(
        type='TimmBackbone', model_name='resnet10t', stem_width=8, channels=(8, 8, 8, 8))),
    head=dict(type='MetricHead', loss=dict(
        type='PML.ArcFaceLoss', num_classes=2, embedding_size=8)))
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.003))
randomness = dict(seed=1)
'''


def draw(folder: Path, count: int) -> None:
    """Pictures of waves in four classes."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:160, :160]
    for number in range(count):
        waves = [128 + 100 * np.sin(down / a + across / b) for a, b in rng.uniform(3, 30, (3, 2))]
        path = folder / f'class{number % 4}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(path)


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """The wall clock and the processor's time of a process.

    Raises:
        SystemExit: it failed.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True,
                          check=False, env=os.environ | {'PYTHONPATH': str(ROOT)})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def lines(folder: Path) -> dict[str, list[str]]:
    """The commands by the name of their line, after what they need has been made."""
    from retrieval.gallery import Gallery

    query = str(folder / 'pictures/class1/1.png')
    search = ['-m', 'retrieval', 'search', 'pictures', query, '--out', 'out']
    exported = [*search, '--encoder', 'exported']
    seconds(['-m', 'retrieval', 'export', '--encoder', 'efficientnet-lite0', 'exported',
             '--pictures', 'pictures'], folder)
    for command in (search, exported):
        seconds(command, folder)
    gallery = Gallery.load(folder / 'pictures/.retrieval/exported.safetensors')
    np.save(folder / 'rows.npy', gallery.embeddings.numpy())
    (folder / 'names.txt').write_text('\n'.join(gallery.ids))
    (folder / 'small.py').write_text(CONFIG)
    return {
        'import numpy': ['-c', 'import numpy'],
        'import onnxruntime': ['-c', 'import onnxruntime'],
        'import torch': ['-c', 'import torch'],
        'import torch, timm': ['-c', 'import torch, timm'],
        'retrieval --help': ['-m', 'retrieval', '--help'],
        'one product (as rclip)': ['-c', ONE_PRODUCT, 'exported', 'rows.npy', 'names.txt', query],
        'search of an encoded folder, ONNX': exported,
        'search of an encoded folder': search,
        'find_duplicates of an encoded folder': ['-m', 'retrieval', 'find_duplicates', 'pictures',
                                                 '--out', 'twins'],
        'imports, building and one step, bare': ['-c', BARE],
        'train of one iteration': ['-m', 'retrieval', 'train', 'small.py', '--work-dir', 'work',
                                   '--no-validate'],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--pictures', type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / 'pictures', arguments.pictures)
        commands = lines(folder)
        found: dict[str, list[tuple[float, float]]] = {line: [] for line in commands}
        for _ in range(arguments.runs):
            for line, command in commands.items():
                found[line].append(seconds(command, folder))
    medians = {line: [statistics.median(part) for part in zip(*times, strict=True)]
               for line, times in found.items()}
    torch = medians['import torch'][1]
    print(f'{arguments.pictures} pictures; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores')
    print('| | wall, s | processor, s | over `import torch` |\n|---|---|---|---|')
    for line, (wall, processor) in medians.items():
        print(f'| {line} | {wall:.2f} | {processor:.2f} | {processor / torch:.2f} |')


if __name__ == '__main__':
    main()
