"""Find near-duplicates within a gallery, or between two that should share none."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import reports_errors
from .folders import add_folder_options, open_vectors

_SHOWN = 48


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser(
        'find_duplicates', description=__doc__, epilog='What a near-duplicate is depends on the '
        'encoder: look at the pairs at the end of duplicates.png, which are nearest to the '
        'threshold, and move it.')
    arguments.add_argument('gallery', help='a gallery file, or a folder of images')
    arguments.add_argument('other', nargs='?', help='another one: what do the two share?')
    arguments.add_argument('--threshold', type=float, default=0.95,
                           help='pairs at least so similar are reported (default: 0.95)')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--out', default='work_dirs/duplicates', metavar='DIR',
                           help='where duplicates.json and duplicates.png go '
                           '(default: work_dirs/duplicates)')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..files import write_json
    from ..ranking.range_search import checked_threshold
    from ..search import find_duplicates

    checked_threshold(arguments.threshold, arguments.similarity)  # before a folder is encoded

    gallery, dataset = open_vectors(arguments.gallery, arguments)
    other, other_dataset = None, None
    if arguments.other is not None:
        other, other_dataset = open_vectors(arguments.other, arguments)
    found = find_duplicates(gallery, other, arguments.threshold, arguments.similarity)
    out = Path(arguments.out)
    result = dict(gallery=arguments.gallery, other=arguments.other,
                  threshold=arguments.threshold, **found.as_dict())
    write_json(out / 'duplicates.json', result)
    print(f'{len(found)} pairs reach {arguments.threshold:g}, in {len(found.groups)} groups')
    if len(found):
        draw(result['pairs'], [dataset, other_dataset], out / 'duplicates.png')
        print(f'{out}/duplicates.json and {out}/duplicates.png hold them.')
    else:
        print(f'{out}/duplicates.json says so.')


def draw(pairs: list[dict[str, Any]], datasets: list[Any], path: Path) -> None:
    """A sheet of pairs, spread evenly from the most similar to the least."""
    from ..visualization import Pictures, draw_image_grid

    pictures = Pictures(datasets)
    count = min(_SHOWN, len(pairs))
    chosen = [pairs[round(n * (len(pairs) - 1) / max(1, count - 1))] for n in range(count)]
    images, captions = [], []
    for number, pair in enumerate(chosen, 1):
        for name in (pair['id'], pair['other']):
            images.append(pictures.of(name))
            captions.append(f'pair {number}: {pair["score"]:.4f}\n{Path(name).name}')
    draw_image_grid(images, captions, path, columns=8, title=f'{len(pairs)} pairs, '
                    f'{count} of them from the most similar to the least')


if __name__ == '__main__':
    main()
