"""Choose the threshold of a match from labels, marks or neither, and write it."""
from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors
from .folders import add_folder_options, is_folder, list_unreadable, open_folder, open_vectors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('calibrate', description=__doc__, epilog='Search with it: '
                              'search GALLERY QUERY --calibration OUT.json')
    arguments.add_argument('gallery', help='a gallery file with labels, or a folder with one '
                           'sub-folder a class; with --marks or --without-labels, any')
    arguments.add_argument('out', metavar='OUT.json', help='the calibration to write')
    arguments.add_argument('--criterion', metavar='NAME',
                           help='f1 (default), false_match_rate or precision; without labels '
                           'expected (default), no_match or coverage')
    arguments.add_argument('--target', type=float, help='the rate or precision that is wanted '
                           '(default: 0.001, 0.99); without labels how many results that do not '
                           'match are expected at the threshold (1), the share of the queries '
                           'without a match that get a result (0.05), or the share of altered '
                           'pictures that find the original (0.95)')
    arguments.add_argument('--without-labels', action='store_true', help='every query gets a '
                           'threshold of its own, from the scores that do not match; the pictures '
                           'of a folder are altered, to see how many find the original')
    arguments.add_argument('--strangers', metavar='FOLDER', help='pictures, or a gallery of them, '
                           'that are known to have no match, for the rate of no_match')
    arguments.add_argument('--method', default='platt', metavar='NAME',
                           help='of the probabilities: platt (default) or isotonic')
    arguments.add_argument('--per-class', action='store_true',
                           help='choose a threshold for each class as well')
    arguments.add_argument('--neighbors', type=int, metavar='K', help='count only the K most '
                           'similar images of each, as a search returns them')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--marks', metavar='marks.csv', help='calibrate on results that were '
                           'marked right or wrong on the page of `serve`, in the place of labels')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..evaluation import tar_at_far

    if arguments.without_labels:
        return _without_labels(arguments)
    if arguments.strangers is not None:
        raise ValueError('--strangers are pictures without a match, for --without-labels: give '
                         'that too.')
    gallery, dataset = open_vectors(arguments.gallery, arguments)
    arguments.criterion = arguments.criterion or 'f1'
    made, pairs = (_from_labels(gallery, arguments) if arguments.marks is None
                   else _from_marks(gallery, dataset, arguments))
    made.save(arguments.out)
    rates = tar_at_far(pairs)
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
    return dict(files=[arguments.out], threshold=made.threshold, measured=measured, rates=rates,
                class_thresholds=made.class_thresholds, skipped=gallery.skipped)


def _without_labels(arguments: argparse.Namespace) -> Outcome:
    """Write the calibration of a gallery that has no labels, and print what is known of it."""
    from ..evaluation import calibrate_without_labels
    from ..search.alterations import encode_altered

    for name, given in (('--per-class', arguments.per_class), ('--marks', arguments.marks),
                        ('--neighbors', arguments.neighbors is not None),
                        ('--method', arguments.method != 'platt')):
        if given:
            raise ValueError(f'{name} is of a calibration on labels or marks: leave it out with '
                             '--without-labels.')
    altered = None
    if is_folder(arguments.gallery):
        inferencer = open_folder(os.path.abspath(arguments.gallery), arguments)
        gallery = inferencer.model.gallery
        found = encode_altered(inferencer.model, inferencer.gallery_dataset,
                               progress='Encoding altered pictures')
        altered = found.embeddings, gallery.find(found.ids)
    else:
        if arguments.criterion == 'coverage':
            raise ValueError('--criterion coverage alters pictures, and encodes them: give the '
                             'folder of pictures in the place of the gallery.')
        gallery = open_vectors(arguments.gallery, arguments)[0]
    strangers = None if arguments.strangers is None else \
        open_vectors(arguments.strangers, arguments)[0]
    made = calibrate_without_labels(
        gallery.embeddings, arguments.criterion or 'expected', arguments.target,
        strangers=None if strangers is None else strangers.embeddings, altered=altered,
        similarity=arguments.similarity)
    made.save(arguments.out)
    measured, expected = made.measured, math.exp(-made.threshold)
    rate = measured['target'] if measured['criterion'] == 'no_match' else -math.expm1(-expected)
    print(f'a match where fewer than {expected:.3g} results that do not match are to be expected; '
          f'{"at most" if strangers else "about"} {rate:.1%} of the queries without a match get a '
          'result, as '
          + ('the pictures without a match say' if strangers else 'estimated from the gallery'))
    if altered is not None:
        print(f'of {measured["altered"]} altered pictures {measured["coverage"]:.1%} find the '
              'original')
    print(f'written to {arguments.out}')
    list_unreadable(gallery, strangers)
    return dict(files=[arguments.out], threshold=made.threshold, measured=measured,
                skipped=gallery.skipped)


def _from_labels(gallery: Any, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The calibration on all pairs of a gallery, and the pairs."""
    from ..evaluation import calibrate, pairs_within

    if gallery.labels is None:
        raise ValueError(f'{arguments.gallery!r} has no labels, so it is not known which images '
                         'match. Dump a gallery from a dataset with labels, or give a folder with '
                         'one sub-folder a class, or --marks, or --without-labels.')
    made = calibrate(gallery.embeddings, gallery.labels, arguments.criterion, arguments.target,
                     arguments.method, per_class=arguments.per_class,
                     similarity=arguments.similarity, neighbors=arguments.neighbors,
                     label_names=gallery.label_names)
    return made, pairs_within(gallery.embeddings, gallery.labels, arguments.similarity)


def _from_marks(gallery: Any, dataset: Any, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The calibration on marked results, and their pairs."""
    from ..evaluation import calibrate_pairs, count_pairs
    from ..gallery import is_gallery
    from ..runs.config import test_pipeline
    from .marked import load_pairs
    from .search import open_gallery
    from .serve import folder_model

    for name, given in (('--per-class', arguments.per_class),
                        ('--neighbors', arguments.neighbors is not None),
                        ('--similarity', arguments.similarity != 'cosine_similarity')):
        if given:
            raise ValueError(f'{name} is of a calibration on labels: marks have one threshold, of '
                             'the cosine similarity.')
    path = os.path.abspath(arguments.gallery)
    folder = path if os.path.isdir(path) and not is_gallery(path) else None

    def model() -> tuple[Any, Any]:
        if folder is not None:
            arguments.device = None
            served, _ = folder_model(folder, arguments)
            return served.model, served.pipeline
        arguments.topk, arguments.ignore_fingerprint, arguments.calibration = 10, False, None
        inferencer, config = open_gallery(arguments)
        return inferencer.model, test_pipeline(config)
    pairs = load_pairs(arguments.marks, gallery, folder, dataset, model)
    pairs.check()
    counted = count_pairs(pairs.scores, pairs.right > 0)
    return calibrate_pairs(counted, arguments.criterion, arguments.target,
                           arguments.method), counted


if __name__ == '__main__':
    main()
