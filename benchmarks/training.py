"""Training and feature extraction against plain PyTorch loops.

    python benchmarks/training.py                     every case
    python benchmarks/training.py step --rounds 3     one case

``step``: a training step of ResNet-18 (64 px, batch 64, ArcFace over 100 classes, AdamW) through
the Runner with the hooks of `configs/_base_/default_runtime.py`, against the same step in a loop of
``DataLoader``, forward, backward and ``optimizer.step()``. Printed is the ratio of the median
times from the beginning of one step to the beginning of the next.
``features``: encoding a gallery of images that are tensors in memory, against the bare forward
rate of the same encoder over ready batches.
``files``: encoding a gallery of JPEG files with a small encoder, so that reading is the limit,
against a loop of ``DataLoader``, Pillow and torchvision with the same encoder.
``folder``: a folder of such files as `retrieval search FOLDER` encodes it, with the default encoder
and all that is kept, against the bare forward rate of that encoder over ready batches.

Both sides take turns in one process with the same threads; on a GPU where there is one.
"""
from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.hooks import Hook
from record import verdict
from torch import Tensor, nn

import retrieval.registry  # noqa: F401  (lets torchvision's import pass beside a CPU torch)
from retrieval.datasets import RetrievalDataset
from retrieval.registry import DATASETS, HOOKS

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
CLASSES, SIZE, BATCH = 100, 64, 64
ENCODER = dict(type='ImageEncoder', backbone=dict(type='TimmBackbone', model_name='resnet18'),
               pooling=dict(type='GlobalAveragePooling'), normalize=True)


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Noise ``(count, 3, SIZE, SIZE)`` uint8 and classes ``(count,)`` int64."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (count, 3, SIZE, SIZE), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(0, CLASSES, count))


@DATASETS.register_module()
class MemoryPictures(RetrievalDataset):
    """The same pictures as a dataset of ours."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        self.images, self.classes = pictures(count)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a picture."""
        return [dict(gt_label=int(label), sample_id=str(row))
                for row, label in enumerate(self.classes)]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry with its picture."""
        return dict(super().get_data_info(idx), img=self.images[idx])


@HOOKS.register_module()
class StepClock(Hook):
    """Notes when each step begins."""

    priority = 'VERY_HIGH'
    times: ClassVar[list[float]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note the time, when the GPU has done what was before."""
        synchronize()
        self.times.append(time.perf_counter())


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def loader_config(count: int, batch: int = BATCH, shuffle: bool = False) -> dict[str, Any]:
    """The dataloader over pictures in memory."""
    return dict(batch_size=batch, num_workers=0, drop_last=shuffle,
                dataset=dict(type='MemoryPictures', count=count,
                             pipeline=[dict(type='PackInputs')]),
                sampler=dict(type='DefaultSampler', shuffle=shuffle),
                collate_fn=dict(type='retrieval.image_collate'))


def loss_config() -> dict[str, Any]:
    """The loss of both sides."""
    return dict(type='PML.ArcFaceLoss', num_classes=CLASSES, embedding_size=512, margin=28.6,
                scale=64)


def runner_of(folder: str, steps: int) -> Any:
    """A Runner with the hooks that every config has."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    base = Config.fromfile(Path(__file__).parents[1] / 'configs/_base_/default_runtime.py')
    loader = loader_config(steps * BATCH, shuffle=True)
    base.merge_from_dict(dict(
        work_dir=folder, log_level='ERROR', experiment_name='benchmark',
        model=dict(type='ImageToImageRetriever', image_encoder=ENCODER,
                   data_preprocessor=dict(mean=[127.0], std=[64.0]),
                   prototype=loader_config(BATCH),
                   head=dict(type='MetricHead', loss=loss_config())),
        train_dataloader=loader, train_cfg=dict(type='ResumableTrainLoop', max_epochs=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=1, convert_to_iter_based=True)]))
    base.default_hooks.checkpoint = None
    base.default_hooks.pop('checkpoint')
    base.custom_hooks = [*base.custom_hooks, dict(type='StepClock')]
    base.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return Runner.from_cfg(base)


def ours_steps(folder: str, steps: int) -> list[float]:
    """Seconds from step to step of an epoch through the Runner, without the first three."""
    runner = runner_of(folder, steps)
    StepClock.times.clear()
    runner.train()
    return np.diff(np.array(StepClock.times))[3:].tolist()


def bare_steps(steps: int) -> list[float]:
    """The same of a plain loop."""
    from torch.utils.data import DataLoader, TensorDataset

    from retrieval.registry import MODELS

    encoder = MODELS.build(dict(ENCODER, type='retrieval.ImageEncoder')).to(DEVICE).train()
    loss = MODELS.build(loss_config()).to(DEVICE)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *loss.parameters()], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    times = []
    for images, classes in DataLoader(TensorDataset(*pictures(steps * BATCH)), BATCH, shuffle=True):
        synchronize()
        times.append(time.perf_counter())
        batch = (images.to(DEVICE).float() - 127) / 64
        value = loss(encoder(batch), classes.to(DEVICE))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
        value.item()  # logged
    return np.diff(np.array(times))[3:].tolist()


def step(options: argparse.Namespace) -> bool:
    """A training step."""
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            ours += ours_steps(f'{folder}/{number}', options.steps)
            bare += bare_steps(options.steps)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f'\nstep: ours {1e3 * statistics.median(ours):.1f} ms, bare '
          f'{1e3 * statistics.median(bare):.1f} ms, medians of {len(ours)}')
    return verdict('a step of ResNet-18 (64 px, batch 64, ArcFace) through the Runner, time',
                   'a bare loop', ratio, 1.05, ours=f'{1e3 * statistics.median(ours):.0f} ms',
                   theirs=f'{1e3 * statistics.median(bare):.0f} ms')


def retriever(prototype: Any, encoder: nn.Module, mean: float = 127.0, std: float = 64.0) -> Any:
    """A retriever around an encoder."""
    from retrieval.registry import MODELS

    return MODELS.build(dict(type='retrieval.ImageToImageRetriever', image_encoder=encoder,
                             prototype=prototype,
                             data_preprocessor=dict(mean=[mean], std=[std]))).to(DEVICE).eval()


@torch.no_grad()
def features(options: argparse.Namespace) -> bool:
    """Encoding what is in memory."""
    from mmengine.runner import Runner

    from retrieval.registry import MODELS
    from retrieval.retrievers import encode

    count = options.images // BATCH * BATCH
    loader = Runner.build_dataloader(loader_config(count))
    encoder = MODELS.build(dict(ENCODER, type='retrieval.ImageEncoder')).to(DEVICE).eval()
    model = retriever(loader, encoder)
    batches = ((pictures(count)[0].float() - 127) / 64).split(BATCH)

    def bare() -> Tensor:
        return torch.cat([encoder(batch.to(DEVICE)).cpu() for batch in batches])

    apart = float((encode(model, loader).embeddings.cpu() - bare()).abs().max())
    seconds = turns({'ours': lambda: encode(model, loader), 'bare': bare}, options.rounds)
    print(f'\nfeatures: {count} pictures in memory, ours {count / seconds["ours"]:.0f}/s, bare '
          f'forward {count / seconds["bare"]:.0f}/s; largest difference {apart:.1e}')
    return verdict('encoding pictures in memory, rate', 'the bare forward pass',
                   seconds['bare'] / seconds['ours'], 0.95, least=True,
                   ours=f'{count / seconds["ours"]:.0f}/s',
                   theirs=f'{count / seconds["bare"]:.0f}/s')


class Tiny(nn.Module):
    """An encoder that costs next to nothing, so that reading is the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(3 * 64, 128))

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, 224, 224) -> (B, 128)``."""
        return self.layers(images)


@torch.no_grad()
def files(options: argparse.Namespace) -> bool:
    """Encoding image files."""
    from image_reading import draw_files, pipeline
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from retrieval.retrievers import encode

    with tempfile.TemporaryDirectory() as folder:
        drawn = argparse.Namespace(images=options.images, width=500, height=375,
                                   folder=Path(folder), decoder='opencv', min_edge=None)
        draw_files(Path(folder), drawn)
        loader = Runner.build_dataloader(dict(
            batch_size=BATCH, num_workers=options.workers,
            dataset=dict(type='retrieval.ImageFolder', data_root=folder,
                         pipeline=pipeline('test', drawn)),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='retrieval.image_collate')))
        encoder = Tiny().to(DEVICE).eval()
        model = retriever(loader, encoder, 0.0, 255.0)
        plain = DataLoader(datasets.ImageFolder(folder, transforms.Compose([
            transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])),
            BATCH, num_workers=options.workers)
        seconds = turns({
            'ours': lambda: encode(model, loader),
            'bare': lambda: torch.cat([encoder(images.to(DEVICE)).cpu() for images, _ in plain])},
            options.rounds)
    print(f'\nfiles: {options.images} JPEG files of 500 x 375, {options.workers} workers, ours '
          f'{options.images / seconds["ours"]:.0f}/s, DataLoader and Pillow '
          f'{options.images / seconds["bare"]:.0f}/s')
    return verdict('encoding JPEG files with a small encoder, rate',
                   'DataLoader, Pillow and torchvision', seconds['bare'] / seconds['ours'], 1.2,
                   least=True, ours=f'{options.images / seconds["ours"]:.0f}/s',
                   theirs=f'{options.images / seconds["bare"]:.0f}/s')


@torch.no_grad()
def folder(options: argparse.Namespace) -> bool:
    """Encoding a folder with the default encoder."""
    from image_reading import draw_files
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    from retrieval import ImageRetrievalInferencer
    from retrieval.retrievers import cached_gallery
    from retrieval.search.prototypes import as_dataset

    count = options.images // 4
    with tempfile.TemporaryDirectory() as home:
        pictures, kept = Path(home, 'pictures'), Path(home, 'kept.safetensors')
        draw_files(pictures, argparse.Namespace(images=count, width=500, height=375))
        found = ImageRetrievalInferencer(None, str(next(pictures.iterdir())), progress=False)
        model = found.model
        loader: Any = DataLoader(as_dataset(str(pictures), found.pipeline, 'skip'), batch_size=16,
                                 collate_fn=pseudo_collate)
        batches = [model.data_preprocessor(batch)['inputs'] for batch in loader]

        def ours() -> Any:
            kept.unlink(missing_ok=True)
            return cached_gallery(model, loader, kept, root=str(pictures))[0]

        def bare() -> Tensor:
            return torch.cat([model.embed(batch).cpu() for batch in batches])

        apart = float((ours().embeddings - bare()).abs().max())
        seconds = turns({'ours': ours, 'bare': bare}, options.rounds)
    print(f'\nfolder: {count} JPEG files of 500 x 375; largest difference {apart:.1e}')
    return verdict('encoding a folder with the default encoder, rate', 'the bare forward pass',
                   seconds['bare'] / seconds['ours'], 0.9, least=True,
                   ours=f'{count / seconds["ours"]:.1f}/s',
                   theirs=f'{count / seconds["bare"]:.1f}/s')


def turns(ways: dict[str, Any], rounds: int) -> dict[str, float]:
    """The median seconds of each way; they take turns, and the first turn does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


CASES = {'step': step, 'features': features, 'files': files, 'folder': folder}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cases', nargs='*', metavar='CASE', help=f'out of {", ".join(CASES)}')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=24, help='of a round, for step')
    parser.add_argument('--images', type=int, default=1024)
    parser.add_argument('--workers', type=int, default=0)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f'unknown case {sorted(unknown)[0]!r}; there are {", ".join(CASES)}')
    print(f'torch {torch.__version__} on {DEVICE}, {torch.get_num_threads()} threads')
    met = {name: CASES[name](options) for name in options.cases or CASES}
    print('\n' + '  '.join(f'{name}: {"met" if good else "NOT MET"}'
                           for name, good in met.items()))


if __name__ == '__main__':
    main()
