"""Cluster a gallery, and write which image is in which cluster."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors
from .folders import add_folder_options, list_unreadable, open_vectors, write_sheet

_SHOWN = 24


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('cluster', description=__doc__)
    arguments.add_argument('gallery', help='a gallery file, or a folder of images')
    arguments.add_argument('--method', default='kmeans', metavar='NAME',
                           help='kmeans (default), connected or hdbscan')
    arguments.add_argument('--k', type=int, help='clusters of k-means '
                           '(default: the square root of half the images)')
    arguments.add_argument('--threshold', type=float,
                           help='of connected: images at least so similar are linked '
                           '(default: 0.8)')
    arguments.add_argument('--min-size', type=int, default=5,
                           help='smallest cluster of connected and hdbscan (default: 5)')
    arguments.add_argument('--seed', type=int, default=0, help='of k-means (default: 0)')
    arguments.add_argument('--out', default='work_dirs/clusters', metavar='DIR',
                           help='where clusters.csv, clusters.json and clusters.png go '
                           '(default: work_dirs/clusters)')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..ranking.range_search import checked_threshold
    from ..search import cluster

    if arguments.threshold is not None:
        checked_threshold(arguments.threshold, 'cosine_similarity')  # before a folder is encoded

    gallery, dataset = open_vectors(arguments.gallery, arguments)
    found = cluster(gallery, arguments.method, k=arguments.k, threshold=arguments.threshold,
                    min_size=arguments.min_size, seed=arguments.seed)
    out = Path(arguments.out)
    write(found, out)
    drawn = draw(found, dataset, out / 'clusters.png')
    alone = int((found.labels < 0).sum())
    print(f'{len(found)} clusters of {len(found.labels)} images, the largest has '
          f'{max(found.sizes, default=0)}; {alone} images are in none')
    files = 'clusters.csv, clusters.json and clusters.png' if drawn \
        else 'clusters.csv and clusters.json'
    print(f'{out}/{files} hold them.')
    list_unreadable(gallery)
    names = ['clusters.csv', 'clusters.json', *['clusters.png'] * drawn]
    return dict(files=[out / name for name in names], clusters=len(found), sizes=found.sizes,
                images=len(found.labels), alone=alone, skipped=gallery.skipped)


def write(found: Any, out: Path) -> None:
    """``clusters.csv`` with the columns ``id,label``, and ``clusters.json`` with the members, the
    most central one first.
    """
    import csv
    import io

    from ..files import write_json, write_text

    table = io.StringIO()
    rows = csv.writer(table, lineterminator='\n')
    rows.writerow(['id', 'label'])
    rows.writerows(zip(found.ids, found.labels.tolist(), strict=True))
    write_text(out / 'clusters.csv', table.getvalue())
    members = [[found.ids[row] for row in found.from_the_centre(label)]
               for label in range(len(found))]
    content = dict(method=found.method, sizes=found.sizes, clusters=members,
                   alone=[found.ids[row] for row in found.members(-1)])
    write_json(out / 'clusters.json', content)


def draw(found: Any, dataset: Any, path: Path, columns: int = 10) -> bool:
    """A row of pictures for each of the largest clusters, from its most central one to its
    outermost; True where there are pictures.
    """
    rows = []
    for label in range(min(len(found), _SHOWN)):
        members = [found.ids[row] for row in found.from_the_centre(label)]
        chosen = [members[n * (len(members) - 1) // (columns - 1)] for n in range(columns)] \
            if len(members) > columns else members
        title = f'{label}: {len(members)} image{"s" * (len(members) > 1)}'
        rows.append([(name, '' if n else title) for n, name in enumerate(chosen)])
    return write_sheet(rows, [dataset], found.ids, path, columns,
                       f'{len(found)} clusters, {min(len(found), _SHOWN)} shown: the most central '
                       'picture first, the outermost last')


if __name__ == '__main__':
    main()
