"""Write the embedded dataset as PNG images, one folder a class, and a CSV that lists them."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors

SPLITS = ('train', 'test')
COLUMNS = ('path', 'label', 'split', 'is_query', 'is_gallery', 'typeface', 'family', 'character')


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('export_glyphs', description=__doc__)
    arguments.add_argument('out', metavar='DIR',
                           help='where it goes: DIR/glyphs.csv, DIR/train and DIR/test with a '
                           'folder for each class; DIR must be new or empty')
    arguments.add_argument('--split', choices=SPLITS, help='only this split (default: both)')
    arguments.add_argument('--size', type=int, default=64,
                           help='the edge of the images in pixels, 8 to 64 (default: 64)')
    arguments.add_argument('--data-root', metavar='CACHE',
                           help='the folder of the cache that the images come from (default: '
                           '~/.cache/retrieval/glyphs)')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    out = Path(arguments.out)
    from ..datasets import Glyphs
    from ..files import new_folder

    splits = [arguments.split] if arguments.split else list(SPLITS)
    with new_folder(out) as folder:
        datasets = [Glyphs(split, arguments.size, arguments.data_root) for split in splits]
        write_list([row for dataset in datasets for row in write_images(dataset, folder)],
                   folder / 'glyphs.csv')
    images = sum(len(dataset) for dataset in datasets)
    classes = sum(len(dataset.metainfo['classes']) for dataset in datasets)
    print(f'{images} images of {classes} classes, listed in {out / "glyphs.csv"}')
    return dict(files=[out, out / 'glyphs.csv'], images=images, classes=classes)


def write_images(dataset: Any, root: Path) -> list[list[str]]:
    """Write the images of one split, and return their rows in the list."""
    from PIL import Image

    from ..progress import progress_bar

    evaluated = str(dataset.split != 'train')
    folders = [folder_name(name) for name in dataset.label_names]
    for label in set(dataset.labels.tolist()):
        (root / dataset.split / folders[label]).mkdir(parents=True)
    rows = []
    with progress_bar(f'Writing {dataset.split}', len(dataset)) as bar:
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            code, stem = info['sample_id'].split('/')
            label = folders[info['gt_label']]
            path = f'{dataset.split}/{label}/{stem}_{code.replace("+", "")}.png'
            Image.fromarray(info['img'][..., 0]).save(root / path)
            rows.append([path, label, dataset.split, evaluated, evaluated,
                         *(info[key] for key in COLUMNS[5:])])
            bar.update()
    return rows


def folder_name(characters: str) -> str:
    """A class as a folder is called: its code points, which every file system can write."""
    return '-'.join(f'U{ord(character):04X}' for character in characters)


def write_list(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Write the rows as a CSV file that ``CSVDataset`` reads."""
    import csv

    with path.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == '__main__':
    main()
