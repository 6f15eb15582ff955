"""Find near-duplicates within a gallery, or between two that should share none."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors
from .folders import (
    add_folder_options,
    add_parts_options,
    check_exists,
    is_folder,
    list_unreadable,
    open_folder,
    open_vectors,
    write_sheet,
)

_SHOWN, _COLUMNS = 40, 8


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'find_duplicates', description=__doc__, epilog='What a near-duplicate is depends on the '
        'encoder: look at the groups at the end of duplicates.png, whose weakest link is nearest '
        'to the threshold, and move it.')
    arguments.add_argument('gallery', help='a gallery file, or a folder of images')
    arguments.add_argument('other', nargs='?', help='another one: what do the two share?')
    arguments.add_argument('--prove', action='store_true',
                           help='compare the pictures themselves: what each is of the best one '
                           '(same bytes, same pixels, re-encoded, resized, cropped, edited, a shot '
                           'of a burst), with a plan and a shell script as the outcome; with OTHER '
                           'what of GALLERY is there already, of which all is kept')
    arguments.add_argument('--neighbors', type=int, default=10, metavar='N',
                           help='with --prove: how many nearest images of each are compared '
                           '(default: 10)')
    arguments.add_argument('--threshold', type=float,
                           help='images at least so similar are grouped (default: 0.95), or with '
                           '--prove compared (default: 0.5)')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--out', default='work_dirs/duplicates', metavar='DIR',
                           help='where duplicates.json, duplicates.csv and duplicates.png go, and '
                           'with --prove duplicates.sh (default: work_dirs/duplicates)')
    add_parts_options(arguments, rerank=False)
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..ranking.range_search import checked_threshold
    from ..search import find_duplicates

    if arguments.threshold is None:
        arguments.threshold = 0.5 if arguments.prove else 0.95
    checked_threshold(arguments.threshold, arguments.similarity)  # before a folder is encoded
    if arguments.prove:
        return prove(arguments)
    if arguments.parts:
        raise ValueError('--parts finds candidates for --prove: write both.')
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


def prove(arguments: argparse.Namespace) -> Outcome:
    """Find what is proved to be a duplicate, and write the outcome.

    Raises:
        ValueError: another similarity than the cosine, or parts of what is no folder.
    """
    import os

    import numpy as np

    from ..answers import file_of
    from ..checks import whole_number
    from ..files import write_bytes, write_json
    from ..progress import progress_bar
    from ..search import plan_script, plan_table, prove_duplicates
    from ..visualization import Pictures

    if arguments.similarity != 'cosine_similarity':
        raise ValueError('--prove compares by cosine_similarity: leave --similarity out.')
    whole_number('--neighbors', arguments.neighbors)
    sets = [arguments.gallery, *([] if arguments.other is None else [arguments.other])]
    galleries, datasets, index = [], [], None
    for name in sets:
        if arguments.parts:
            check_exists(name)
            if not is_folder(name):
                raise ValueError('--parts is for a folder, which is encoded by parts.')
            inferencer = open_folder(os.path.abspath(name), arguments)
            galleries.append(inferencer.model.gallery)
            datasets.append(inferencer.gallery_dataset)
            index = inferencer.model.holder.index  # of the last one, in which is looked
        else:
            gallery, dataset = open_vectors(name, arguments)
            galleries.append(gallery)
            datasets.append(dataset)
    gallery, other = (*galleries, None)[:2]
    pictures = Pictures(datasets)

    def source(name: str) -> Any:
        if file_of(name) == name:
            return name
        picture = pictures.of(name)
        return None if picture is None else np.asarray(picture)
    bars: list[Any] = []

    def progress(title: str, total: int) -> Any:
        for bar in bars:
            bar.close()
        bars.append(progress_bar(title.capitalize(), total))
        return bars[-1].update
    found = prove_duplicates(gallery, source, other=other, neighbors=arguments.neighbors,
                             index=index, threshold=arguments.threshold, progress=progress)
    for bar in bars:
        bar.close()
    out = Path(arguments.out)
    write_json(out / 'duplicates.json', dict(
        gallery=arguments.gallery, other=arguments.other, threshold=arguments.threshold,
        **found.as_dict()))
    write_bytes(out / 'duplicates.csv', plan_table(found))
    write_bytes(out / 'duplicates.sh', plan_script(found))
    rows = []
    for group in [*found.groups, *found.bursts][:_SHOWN]:
        row = [(str(found.ids[group.keep]), 'keep'),
               *((str(found.ids[member]), proof.kind) for member, _, proof in group.members)]
        more = len(row) - _COLUMNS + 1
        rows.append(row if more < 2 else [*row[:_COLUMNS - 1], ('', f'{more} more')])
    rows += [[(str(found.ids[other]), ''), (str(found.ids[row]), proof.kind)]
             for row, other, proof in found.parts[:_SHOWN - len(rows)]]
    drawn = write_sheet(rows, datasets, found.ids, out / 'duplicates.png', _COLUMNS,
                        f'{len(found.groups)} groups; each picture is proved against the one to '
                        'keep') if rows else False
    kinds = report(found, out, drawn)
    list_unreadable(*galleries)
    names = ['duplicates.json', 'duplicates.csv', 'duplicates.sh', *['duplicates.png'] * drawn]
    return dict(files=[out / name for name in names], compared=found.compared,
                groups=len(found.groups), bursts=len(found.bursts), kinds=kinds,
                skipped={name: why for one in galleries for name, why in one.skipped.items()})


def report(found: Any, out: Path, drawn: bool) -> dict[str, int]:
    """Print what was proved, and return how many there are of each kind."""
    from collections import Counter

    from ..search.proof import KINDS, SURE

    kinds = Counter(member.proof.kind for group in (*found.groups, *found.bursts)
                    for member in group.members)
    kinds['part'] = len(found.parts)
    print(f'{found.compared} pairs compared: {len(found.groups)} groups of copies, '
          f'{len(found.bursts)} of bursts')
    for kind in KINDS:
        if kinds[kind]:
            print(f'  {kinds[kind]:5d} {kind}')
    if found.unreadable:
        print(f'{len(found.unreadable)} pictures are not here or cannot be read')
    sure = sum(kinds[kind] for kind in SURE)
    if not kinds.total():
        print(f'{out}/duplicates.json says so.')
        return dict(kinds)
    print(f'{out}/duplicates.csv is the plan{", duplicates.png shows it" if drawn else ""}; '
          f'sh {out}/duplicates.sh FOLDER moves the {sure} that lose nothing into a folder.')
    return dict(kinds)


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
