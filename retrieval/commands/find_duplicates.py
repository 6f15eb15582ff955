"""Find near-duplicates within a gallery, or between two that should share none."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors
from .folders import add_folder_options, list_unreadable, open_vectors, write_sheet

_SHOWN, _COLUMNS = 40, 8


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'find_duplicates', description=__doc__, epilog='What a near-duplicate is depends on the '
        'encoder: look at the groups at the end of duplicates.png, whose weakest link is nearest '
        'to the threshold, and move it.')
    arguments.add_argument('gallery', help='a gallery file, or a folder of images')
    arguments.add_argument('other', nargs='?', help='another one: what do the two share?')
    arguments.add_argument('--threshold', type=float, default=0.95,
                           help='images at least so similar are grouped (default: 0.95)')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--out', default='work_dirs/duplicates', metavar='DIR',
                           help='where duplicates.json, duplicates.csv and duplicates.png go '
                           '(default: work_dirs/duplicates)')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..ranking.range_search import checked_threshold
    from ..search import find_duplicates

    checked_threshold(arguments.threshold, arguments.similarity)  # before a folder is encoded

    gallery, dataset = open_vectors(arguments.gallery, arguments)
    other, other_dataset = None, None
    if arguments.other is not None:
        other, other_dataset = open_vectors(arguments.other, arguments)
    found = find_duplicates(gallery, other, arguments.threshold, arguments.similarity)
    out = Path(arguments.out)
    write(found, arguments, out)
    drawn = draw(found, [dataset, other_dataset], out / 'duplicates.png')
    images = sum(len(rows) + len(others) for rows, others in found.groups)
    print(f'{len(found.groups)} groups of near-duplicates with {images} images, held together by '
          f'{len(found)} pairs that reach {arguments.threshold:g}')
    if found.links:
        print(f'{len(found.links)} images are links to others, and are no duplicates of them')
    files = 'duplicates.json, duplicates.csv and duplicates.png' if drawn \
        else 'duplicates.json and duplicates.csv'
    names = ['duplicates.json', 'duplicates.csv', *['duplicates.png'] * drawn]
    print(f'{out}/{files} hold them.' if len(found) else f'{out}/duplicates.json says so.')
    list_unreadable(gallery, other)
    return dict(files=[out / name for name in names], groups=len(found.groups), images=images,
                pairs=len(found), links=len(found.links),
                skipped={**gallery.skipped, **({} if other is None else other.skipped)})


def write(found: Any, arguments: argparse.Namespace, out: Path) -> None:
    """``duplicates.json`` with groups and pairs, and ``duplicates.csv`` with a line for each image
    of a group: its number, ``gallery`` or ``other``, the id, and the similarity to the nearest.
    """
    import csv
    import io

    from ..files import write_json, write_text

    result = dict(gallery=arguments.gallery, other=arguments.other,
                  threshold=arguments.threshold, **found.as_dict())
    write_json(out / 'duplicates.json', result)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator='\n')
    lines.writerow(['group', 'set', 'id', 'similarity'])
    near = found.nearest()
    for number, group in enumerate(found.groups):
        lines.writerows([number, side, name, round(score, 6)]
                        for side, name, score in members(found, group, near))
    write_text(out / 'duplicates.csv', table.getvalue())


def members(found: Any, group: tuple[list[int], list[int]],
            near: tuple[dict[int, float], dict[int, float]]) -> list[tuple[str, str, float]]:
    """Of each image of a group the set that it is in, its id, and its similarity to the nearest."""
    sides = zip(('gallery', 'other'), (found.ids, found.other_ids), group, near, strict=True)
    return [(side, str(ids[row]), scores[row]) for side, ids, rows, scores in sides
            for row in rows]


def draw(found: Any, datasets: list[Any], path: Path) -> bool:
    """A sheet with a row for each group, from the tightest to the one that is nearest to the
    threshold; True where there are pictures.
    """
    near = found.nearest()
    groups = sorted((members(found, group, near) for group in found.groups),
                    key=lambda group: -min(score for *_, score in group))
    count = min(_SHOWN, len(groups))
    rows = []
    for number in range(count):  # spread evenly
        group = groups[round(number * (len(groups) - 1) / max(1, count - 1))]
        row = [(name, f'{score:.4f}' if found.other_ids is None else f'{side}, {score:.4f}')
               for side, name, score in group]
        if len(row) > _COLUMNS:  # both ends, so that both sets are there
            row = [*row[:_COLUMNS - 3], ('', f'{len(row) - _COLUMNS + 1} more'), *row[-2:]]
        rows.append(row)
    ids = [*found.ids, *(found.other_ids or ())]
    return write_sheet(rows, datasets, ids, path, _COLUMNS, f'{len(groups)} groups, {count} shown, '
                       'from the tightest to the loosest; below each picture its similarity to '
                       'the nearest')


if __name__ == '__main__':
    main()
