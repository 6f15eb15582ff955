"""Evaluate saved embeddings with labels: exact rankings, official metrics, no model."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line import CommandParser, Outcome, reports_errors

if TYPE_CHECKING:
    from ..evaluation import EmbeddingSet, EvaluationTask


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'evaluate', description=__doc__,
        epilog='Metrics: Recall@K Precision@K R-Precision MAP@R mAP mAP@K mAP-trapezoid MRR CMC@K '
        'mINP mP@K NDCG@K AUROC Recall-share@K OML-Precision@K CMC-single-shot@K FNMR@FMR=R PCF@K. '
        'Labels are whole numbers or strings; a gallery file brings its own.')
    arguments.add_argument('embeddings', help='(N, D), a .npy file or a gallery (.safetensors)')
    add_evaluation_options(arguments)
    arguments.add_argument('--confidence', type=float, metavar='SHARE',
                           help='add bootstrap intervals of that share, such as 0.95')
    arguments.add_argument('--per-class', metavar='FILE.json', help='write the results by class')
    arguments.add_argument('--compare', metavar='EMBEDDINGS', help='the same queries by another '
                           'encoder: add the differences to it and their p-values')
    arguments.add_argument('--compare-gallery', metavar='EMBEDDINGS',
                           help='the gallery by the other encoder')
    arguments.add_argument('--out', metavar='RESULT.json', help='where to write the result')
    return arguments


def add_evaluation_options(arguments: argparse.ArgumentParser) -> None:
    """Add what is asked of embeddings, and how they are measured."""
    arguments.add_argument('--labels', help='(N,): a text file with one a line, .npy, .npz '
                           'or .pth, a gallery, or a column of a table: TABLE.csv:COLUMN')
    arguments.add_argument('--gallery', help='embeddings to search in; without it every embedding '
                           'is a query against all others (leave-one-out)')
    arguments.add_argument('--gallery-labels', help='labels of the gallery')
    arguments.add_argument('--similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--metrics', nargs='+', metavar='METRIC',
                           help='(default: Recall@1 MAP@R mAP)')
    arguments.add_argument('--average', metavar='micro|macro',
                           help='mean over queries (micro, the default) or over classes (macro)')
    arguments.add_argument('--empty-queries', default='skip', metavar='skip|zero|error',
                           help='what becomes of a query without a relevant row: it is left out '
                           '(the default), counts as 0, or ends the run')
    arguments.add_argument('--protocol', metavar='NAME', help="a benchmark, such as InShop or "
                           'Market1501, which fixes metrics, similarity and average')
    for name in ('cameras', 'sequences'):
        arguments.add_argument(f'--{name}', metavar='FILE', help=f'{name} of the queries, as '
                               '--labels: rows of the same class and value are not ranked')
        arguments.add_argument(f'--gallery-{name}', metavar='FILE')
    arguments.add_argument('--ground-truth', metavar='FILE.json',
                           help='relevant rows for every query: {"gt_indices": [[…], …]}, or '
                           'gt_easy, gt_hard and gt_junk for revisited Oxford and Paris')


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    check_arguments(arguments)
    from ..evaluation import compare, rank_queries
    from ..evaluation.evaluate import DEFAULT_METRICS
    from ..evaluation.protocols import resolve_protocol
    from ..evaluation.results import with_levels, write_per_class

    metrics, average = arguments.metrics or DEFAULT_METRICS, arguments.average or 'micro'
    if arguments.protocol is not None:
        protocol = resolve_protocol(arguments.protocol)
        metrics, average = protocol.metrics, protocol.average
    truth = read_truth(arguments.ground_truth)

    def ranked(embeddings: str, gallery: str | None) -> dict[str, Any]:
        return {level: rank_queries(task, metrics, empty_queries=arguments.empty_queries)
                for level, task in read_tasks(arguments, embeddings, gallery, truth).items()}

    results = ranked(arguments.embeddings, arguments.gallery)
    report: dict[str, Any] = with_levels({
        level: one.summary(average) for level, one in results.items()})
    if arguments.confidence is not None:
        bounds = with_levels({level: one.confidence(arguments.confidence, average=average)
                              for level, one in results.items()})
        report['confidence'] = {name: list(both) for name, both in bounds.items()}
    if arguments.compare is not None:
        others = ranked(arguments.compare, arguments.compare_gallery)
        report['comparison'] = with_levels({
            level: compare(others[level], one) for level, one in results.items()})
    if arguments.per_class is not None:
        write_per_class(results, arguments.per_class)
    print_report(report)
    if arguments.out is not None:
        from ..files import write_json
        write_json(arguments.out, report, indent=2)
    files = [path for path in (arguments.out, arguments.per_class) if path]
    return dict(files=files, metrics={name: value for name, value in report.items()
                                      if not isinstance(value, dict)},
                **{name: value for name, value in report.items() if isinstance(value, dict)})


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError where options contradict each other."""
    from ..evaluation.protocols import refuse_beside_protocol

    if arguments.protocol is not None:
        refuse_beside_protocol(arguments.protocol, metrics=arguments.metrics,
                               similarity=arguments.similarity, average=arguments.average)
    for name in ('labels', 'cameras', 'sequences'):
        if getattr(arguments, f'gallery_{name}') and not arguments.gallery:
            raise ValueError(f'--gallery-{name} was given without --gallery.')
    if arguments.compare is None and arguments.compare_gallery is not None:
        raise ValueError('--compare-gallery was given without --compare.')
    if arguments.compare is not None and bool(arguments.gallery) != bool(arguments.compare_gallery):
        raise ValueError('--compare needs what the run that it is compared with has: '
                         f'{"give" if arguments.gallery else "leave out"} --compare-gallery.')


def read_tasks(arguments: argparse.Namespace, embeddings: str, gallery: str | None,
               truth: dict[str, Any]) -> dict[str, EvaluationTask]:
    """The evaluation by level of the protocol; under the empty name without levels."""
    from ..evaluation import EvaluationTask
    from ..evaluation.protocols import resolve_protocol

    queries = read_set(arguments, embeddings, '')
    theirs = None if gallery is None else read_set(arguments, gallery, 'gallery_')
    if arguments.protocol is not None:
        return resolve_protocol(arguments.protocol).tasks(queries, theirs, truth)
    excluded = tuple(name for name in ('camera', 'sequence') if any(
        getattr(arguments, f'{side}{name}s') is not None for side in ('', 'gallery_')))
    return {'': EvaluationTask(queries, theirs, truth.get('gt_indices'), truth.get('gt_junk'),
                               excluded, arguments.similarity or 'cosine_similarity')}


def read_set(arguments: argparse.Namespace, path: str, side: str) -> EmbeddingSet:
    """The embeddings of one file, with the columns of other files or its own.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or holds something else, or there are no labels.
    """
    from ..evaluation import EmbeddingSet

    found = EmbeddingSet.load(
        path, getattr(arguments, f'{side}labels'),
        {name: getattr(arguments, f'{side}{name}s') for name in ('camera', 'sequence')})
    if found.labels is None and arguments.ground_truth is None:
        raise ValueError(f'{path!r} brings no labels: give a file of them with '
                         f'--{side.replace("_", "-")}labels.')
    return found


def read_truth(path: str | None) -> dict[str, Any]:
    """The relevant rows of every query by field, from a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    import json

    if path is None:
        return {}
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no ground truth at {path!r}.')
    try:
        truth = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path!r} is no JSON: {error}.') from error
    valid = ('gt_indices', 'gt_easy', 'gt_hard', 'gt_junk')
    if not isinstance(truth, dict) or not truth or set(truth) - set(valid):
        raise ValueError(f'{path!r} must be an object with lists of rows for every query under '
                         f'{", ".join(valid)}.')
    return truth


def print_report(report: dict[str, Any]) -> None:
    """Print a line for each metric, with its interval and its comparison where there are any."""
    plain = {name: value for name, value in report.items() if not isinstance(value, dict)}
    width = max(map(len, plain))
    for name, value in plain.items():
        line = f'{name:{width}}  {value:8{".4f" if isinstance(value, float) else "d"}}'
        if name in report.get('confidence', {}):
            low, high = report['confidence'][name]
            line += f'   {low:.4f} to {high:.4f}'
        if name in report.get('comparison', {}):
            other = report['comparison'][name]
            line += f'   {other["difference"]:+.4f} (p = {other["p_value"]:.4f})'
        print(line)


if __name__ == '__main__':
    main()
