"""Look at what a pipeline makes of its images: a contact sheet with their labels."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checks import whole_number
from .command_line import CommandParser, Outcome, add_config_options, reports_errors

SPLITS = ('train', 'val', 'test', 'gallery')


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('browse_dataset', description=__doc__)
    arguments.add_argument('config', help='a config file, or the name of a shipped one')
    arguments.add_argument('--split', choices=SPLITS, default='train',
                           help='whose dataloader: train_dataloader, …, or the gallery, which is '
                           "the model's prototype (default: train)")
    arguments.add_argument('--number', type=int, default=40, help='how many images (default: 40)')
    arguments.add_argument('--out', default='work_dirs/browse_dataset', metavar='DIR',
                           help='where the sheet goes (default: work_dirs/browse_dataset)')
    arguments.add_argument('--mode', choices=['pipeline', 'original'], default='pipeline',
                           help='what the pipeline makes of an image, or the image as it is '
                           '(default: pipeline)')
    arguments.add_argument('--seed', type=int, default=0,
                           help='which images, and what the pipeline draws (default: 0)')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    whole_number('--number', arguments.number)
    from ..runs.config import load_config
    from ..visualization import draw_image_grid

    config = load_config(arguments.config, arguments.cfg_options)
    dataset = build_dataset(config, arguments.split)
    rows = chosen_rows(len(dataset), arguments.number, arguments.seed)
    bgr = bool((config.model.get('data_preprocessor') or {}).get('to_rgb'))
    images, captions = pictures(dataset, rows, arguments.mode, arguments.seed, bgr)
    path = Path(arguments.out) / f'{arguments.split}_{arguments.mode}.png'
    draw_image_grid(images, captions, path,
                    title=f'{arguments.config}, {arguments.split}: {len(rows)} of {len(dataset)} '
                          f'images, {arguments.mode}')
    print(f'{len(images)} pictures of {len(rows)} of {len(dataset)} images: {path}')
    return dict(files=[path], pictures=len(images), rows=rows, images=len(dataset))


def build_dataset(config: Any, split: str) -> Any:
    """The dataset of ``train_dataloader``, ``val_dataloader`` or ``test_dataloader``, or the one
    that the model's prototype is encoded from.

    Raises:
        ValueError: the config has none.
    """
    from mmengine.registry import init_default_scope

    from ..registry import DATASETS

    init_default_scope(config.default_scope)
    name = 'model.prototype' if split == 'gallery' else f'{split}_dataloader'
    loader = config.model.get('prototype') if split == 'gallery' else config.get(name)
    if not isinstance(loader, dict) or 'dataset' not in loader:
        there = [other for other in SPLITS[:3] if config.get(f'{other}_dataloader')]
        raise ValueError(f'The config has no dataset at `{name}`. It has dataloaders for '
                         f'{", ".join(there) or "nothing"}; choose with --split.')
    return DATASETS.build(loader['dataset'])


def chosen_rows(count: int, number: int, seed: int) -> list[int]:
    """``number`` rows of ``count`` at random, in rising order."""
    import numpy as np

    return np.sort(np.random.default_rng(seed).permutation(count)[:number]).tolist()


def pictures(dataset: Any, rows: Sequence[int], mode: str, seed: int,
             bgr: bool = False) -> tuple[list[Any], list[str]]:
    """The pictures of some rows with their captions; several where the pipeline makes views, and
    None for an image that the dataset skips. ``bgr`` tells the pipeline's order of colours.
    """
    from ..datasets import LoadImage, seed_datasets

    seed_datasets(dataset, seed)
    images: list[Any] = []
    captions: list[str] = []
    names = getattr(dataset, 'label_names', None)
    for row in rows:
        if mode == 'original':
            item = LoadImage().transform(dataset.get_data_info(row))
            views, label = [item['img']], item.get('gt_label')
        else:
            item = dataset[row]
            packed, sample = item['inputs'], item['data_samples']
            views = [None if sample.get('unreadable', None) else as_array(view, bgr)
                     for view in (packed if isinstance(packed, list) else [packed])]
            label = sample.get('gt_label', None)
        images += views
        captions += [caption(row, label, names)] * len(views)
    return images, captions


def caption(row: int, label: Any, names: Sequence[str] | None) -> str:
    """The row, and the label with its name."""
    if label is None:
        return f'#{row}'
    number = int(label)
    name = names[number] if names is not None and number < len(names) else ''
    return f'#{row}\n{number}{": " if name else ""}{name}'


def as_array(image: Any, bgr: bool = False) -> Any:
    """A tensor ``(C, H, W)`` as an array ``(H, W, C)`` uint8, RGB or grey; float values are
    stretched to the full range, since a pipeline that normalises leaves no other scale.
    """
    import numpy as np

    array = image.permute(1, 2, 0).numpy()
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = ((array - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    if array.shape[2] == 3 and bgr:
        array = array[..., ::-1]
    return np.ascontiguousarray(array if array.shape[2] in (1, 3) else array[..., :1])


if __name__ == '__main__':
    main()
