"""Choose the threshold of a match from a gallery's labels, and write it with probabilities."""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from .command_line import reports_errors
from .folders import add_folder_options, list_unreadable, open_vectors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser('calibrate', description=__doc__, epilog='Search with it: '
                                        'search GALLERY QUERY --calibration OUT.json')
    arguments.add_argument('gallery', help='a gallery file with labels, or a folder with one '
                           'sub-folder a class')
    arguments.add_argument('out', metavar='OUT.json', help='the calibration to write')
    arguments.add_argument('--criterion', default='f1', metavar='NAME',
                           help='f1 (default), false_match_rate or precision')
    arguments.add_argument('--target', type=float, help='the rate or precision that is wanted '
                           '(default: 0.001, 0.99)')
    arguments.add_argument('--method', default='platt', metavar='NAME',
                           help='of the probabilities: platt (default) or isotonic')
    arguments.add_argument('--per-class', action='store_true',
                           help='choose a threshold for each class as well')
    arguments.add_argument('--neighbors', type=int, metavar='K', help='count only the K most '
                           'similar images of each, as a search returns them')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..evaluation import calibrate, pairs_within, tar_at_far

    gallery, _ = open_vectors(arguments.gallery, arguments)
    if gallery.labels is None:
        raise ValueError(f'{arguments.gallery!r} has no labels, so it is not known which images '
                         'match. Dump a gallery from a dataset with labels, or give a folder with '
                         'one sub-folder a class.')
    made = calibrate(gallery.embeddings, gallery.labels, arguments.criterion, arguments.target,
                     arguments.method, per_class=arguments.per_class,
                     similarity=arguments.similarity, neighbors=arguments.neighbors,
                     label_names=gallery.label_names)
    made.save(arguments.out)
    rates = tar_at_far(pairs_within(gallery.embeddings, gallery.labels, arguments.similarity))
    measured = made.measured
    print(f'threshold {made.threshold:.4f}: of {measured["matches"]} matching pairs '
          f'{measured["tar"]:.2%} reach it, of {measured["others"]} others '
          f'{measured["far"]:.4%}; F1 {measured["f1"]:.4f}')
    print(', '.join(f'{name} {value:.2%}' for name, value in rates.items()))
    if made.class_thresholds:
        thresholds = made.class_thresholds.values()
        print(f'{len(thresholds)} classes have thresholds of their own, from '
              f'{min(thresholds):.4f} to {max(thresholds):.4f}')
    print(f'written to {arguments.out}')
    list_unreadable(gallery)


if __name__ == '__main__':
    main()
