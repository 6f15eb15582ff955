"""Evaluate saved embeddings with labels: exact rankings, official metrics, no model."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .command_line import reports_errors

if TYPE_CHECKING:
    from ..evaluation import QueryFigures
    from ..gallery import Gallery

class Side(NamedTuple):
    """One file of embeddings: ``(N, D)``, and what is known of the rows."""

    embeddings: Any = None
    labels: Any = None
    ids: Any = None
    cameras: Any = None
    sequences: Any = None


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser(
        'evaluate', description=__doc__,
        epilog='Metrics: Recall@K Precision@K R-Precision MAP@R mAP mAP@K mAP-trapezoid MRR CMC@K '
        'mINP mP@K. Labels are whole numbers or strings; a gallery file brings its own.')
    arguments.add_argument('embeddings', help='(N, D), a .npy file or a gallery (.safetensors)')
    arguments.add_argument('--labels', help='(N,), a .npy file, or a text file with one a line')
    arguments.add_argument('--gallery', help='embeddings to search in; without it every embedding '
                           'is a query against all others (leave-one-out)')
    arguments.add_argument('--gallery-labels', help='labels of the gallery')
    arguments.add_argument('--similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--metrics', nargs='+', metavar='METRIC',
                           help='(default: Recall@1 MAP@R mAP)')
    arguments.add_argument('--average', metavar='micro|macro',
                           help='mean over queries (micro, the default) or over classes (macro)')
    arguments.add_argument('--protocol', metavar='NAME', help="a benchmark, such as InShop or "
                           'Market1501, which fixes metrics, similarity and average')
    for name in ('cameras', 'sequences'):
        arguments.add_argument(f'--{name}', metavar='FILE', help=f'{name} of the queries, as '
                               '--labels: rows of the same class and value are not ranked')
        arguments.add_argument(f'--gallery-{name}', metavar='FILE')
    arguments.add_argument('--ground-truth', metavar='FILE.json',
                           help='relevant rows for every query: {"gt_indices": [[…], …]}, or '
                           'gt_easy, gt_hard and gt_junk for revisited Oxford and Paris')
    arguments.add_argument('--confidence', type=float, metavar='SHARE',
                           help='add bootstrap intervals of that share, such as 0.95')
    arguments.add_argument('--per-class', metavar='FILE.json', help='write the figures by class')
    arguments.add_argument('--compare', metavar='EMBEDDINGS', help='the same queries by another '
                           'encoder: add the differences to it and their p-values')
    arguments.add_argument('--compare-gallery', metavar='EMBEDDINGS',
                           help='the gallery by the other encoder')
    arguments.add_argument('--out', metavar='RESULT.json', help='where to write the result')
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    check_arguments(arguments)
    from ..evaluation import resolve_protocol

    average = arguments.average or 'micro'
    if arguments.protocol is not None:
        average = resolve_protocol(arguments.protocol).average
    queries, gallery = read_sides(arguments, arguments.embeddings, arguments.gallery)
    figures = rank(arguments, queries, gallery)
    result = {name: value for level, ranked in figures.items()
              for name, value in _named(level, ranked.summary(average)).items()}
    if arguments.confidence is not None:
        result['confidence'] = {
            name: list(bounds) for level, ranked in figures.items() for name, bounds in
            _named(level, ranked.confidence(arguments.confidence, average=average)).items()}
    if arguments.compare is not None:
        result['comparison'] = compare_with(arguments, figures)
    if arguments.per_class is not None:
        write_classes(figures, arguments.per_class)
    report(result, arguments.out)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError where options contradict each other."""
    from ..evaluation import refuse_beside_protocol

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


def read_sides(arguments: argparse.Namespace, embeddings: str,
               gallery: str | None) -> tuple[Side, Side]:
    """The queries, and the gallery where there is one."""
    options = {name: getattr(arguments, name) for name in ('labels', 'cameras', 'sequences')}
    needs_labels = arguments.ground_truth is None
    queries = read_side(embeddings, options, '--', needs_labels)
    if gallery is None:
        return queries, Side()
    options = {name: getattr(arguments, f'gallery_{name}') for name in options}
    return queries, read_side(gallery, options, '--gallery-', needs_labels)


def rank(arguments: argparse.Namespace, queries: Side,
         gallery: Side) -> dict[str, QueryFigures]:
    """What every query scores, by level of the protocol; under the empty name without levels."""
    from ..evaluation import DEFAULT_METRICS, rank_protocol, rank_queries, resolve_protocol

    truth = read_truth(arguments.ground_truth)
    sides = (queries.embeddings, queries.labels, gallery.embeddings, gallery.labels)
    ids: dict[str, Any] = dict(ids=queries.ids, gallery_ids=gallery.ids)
    if arguments.protocol is None:
        options: dict[str, Any] = dict(ids)
        for name in ('cameras', 'sequences'):
            if getattr(arguments, name) is not None:
                options[name] = getattr(queries, name)
                options[f'gallery_{name}'] = getattr(gallery, name)
        return {'': rank_queries(
            *sides, metrics=arguments.metrics or DEFAULT_METRICS,
            similarity=arguments.similarity or 'cosine_similarity',
            relevance=truth.get('gt_indices'), junk=truth.get('gt_junk'), **options)}
    names = resolve_protocol(arguments.protocol).exclude_same
    return rank_protocol(
        arguments.protocol, *sides, **ids, ground_truth=truth,
        columns={name: getattr(queries, f'{name}s') for name in names},
        gallery_columns={name: getattr(gallery, f'{name}s') for name in names})


def compare_with(arguments: argparse.Namespace, figures: dict[str, QueryFigures]) -> dict[str, Any]:
    """The differences of this run to that of ``--compare``, positive where this one is better."""
    from ..evaluation import compare

    others = rank(arguments, *read_sides(arguments, arguments.compare, arguments.compare_gallery))
    return {name: found for level in figures
            for name, found in _named(level, compare(others[level], figures[level])).items()}


def _named(level: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f'{level}/{name}' if level else name: value for name, value in values.items()}


def write_classes(figures: dict[str, QueryFigures], path: str) -> None:
    """Write the figures of every class to a JSON file."""
    import json

    from ..files import write_text
    tables = {level: {str(label): row for label, row in ranked.per_class().items()}
              for level, ranked in figures.items()}
    write_text(path, json.dumps(tables.get('', tables), indent=1) + '\n')


def report(result: dict[str, Any], out: str | None) -> None:
    """Print the figures, and write them to a JSON file where one is named."""
    plain = {name: value for name, value in result.items() if not isinstance(value, dict)}
    width = max(map(len, plain))
    for name, value in plain.items():
        line = f'{name:{width}}  {value:8.4f}' if isinstance(value, float) else \
            f'{name:{width}}  {value:8d}'
        if name in result.get('confidence', {}):
            low, high = result['confidence'][name]
            line += f'   {low:.4f} to {high:.4f}'
        if name in result.get('comparison', {}):
            other = result['comparison'][name]
            line += f'   {other["difference"]:+.4f} (p = {other["p_value"]:.4f})'
        print(line)
    if out is not None:
        import json

        from ..files import write_text
        write_text(out, json.dumps(result, indent=2) + '\n')


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


def read_side(path: str, options: dict[str, str | None], prefix: str,
              needs_labels: bool = True) -> Side:
    """The embeddings of one file, with the columns of other files or its own.

    Args:
        path: the embeddings.
        options: the files of ``labels``, ``cameras`` and ``sequences``, or None.
        prefix: what stands before those names in the command's options.
        needs_labels: whether labels must be there.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or holds something else, or there are no labels.
    """
    from ..gallery import Gallery, is_gallery

    if not is_gallery(path):
        raise FileNotFoundError(f'There are no embeddings at {path!r}.')
    gallery = Gallery.load(path)
    columns = {}
    for name, file in options.items():
        own = labels_of(gallery) if name == 'labels' else \
            _plain(gallery.metadata.get(name.removesuffix('s')))
        columns[name] = read_labels(file) if file is not None else own
        if columns[name] is not None and len(columns[name]) != len(gallery):
            raise ValueError(f'{file or path!r} holds {len(columns[name])} {name} for the '
                             f'{len(gallery)} embeddings of {path!r}: give one each.')
    if columns['labels'] is None and needs_labels:
        raise ValueError(f'{path!r} brings no labels: give a file of them with {prefix}labels.')
    return Side(gallery.embeddings, ids=gallery.ids if gallery.identified else None, **columns)


def _plain(column: Any) -> Any:
    return list(column) if column is not None and not hasattr(column, 'dtype') else column


def labels_of(gallery: Gallery) -> Any:
    """A gallery's labels, by name where it has names: two galleries may number classes apart."""
    if gallery.labels is None or gallery.label_names is None:
        return gallery.labels
    return [gallery.label_name(row) for row in range(len(gallery))]


def read_labels(path: str) -> Any:
    """Labels ``(N,)`` from a ``.npy`` file, a gallery, or a text file with one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds no labels.
    """
    import numpy as np

    from ..gallery import Gallery

    if not Path(path).is_file():
        raise FileNotFoundError(f'There are no labels at {path!r}.')
    suffix = Path(path).suffix
    if suffix == '.safetensors':
        return labels_of(Gallery.load(path))
    if suffix != '.npy':
        lines = Path(path).read_text().split('\n')
        lines = lines[:-1] if lines and not lines[-1] else lines
        return [int(line) for line in lines] if all(map(_is_integer, lines)) else lines
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(f'{path!r} cannot be read as labels: {error}. Write whole numbers or '
                         'strings with numpy.save.') from error


def _is_integer(line: str) -> bool:
    try:
        int(line)
    except ValueError:
        return False
    return True


if __name__ == '__main__':
    main()
