"""Evaluate saved embeddings with labels: exact rankings, official metrics, no model."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .command_line import reports_errors

if TYPE_CHECKING:
    from ..gallery import Gallery


class Side(NamedTuple):
    """One file of embeddings: ``(N, D)``, and what is known of the rows."""

    embeddings: Any
    labels: Any
    ids: Any


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser(
        'evaluate', description=__doc__,
        epilog='Metrics: Recall@K Precision@K R-Precision MAP@R mAP mAP@K mAP-trapezoid MRR CMC@K '
        'mINP. Labels are whole numbers or strings; a gallery file brings its own.')
    arguments.add_argument('embeddings', help='(N, D), a .npy file or a gallery (.safetensors)')
    arguments.add_argument('--labels', help='(N,), a .npy file, or a text file with one a line')
    arguments.add_argument('--gallery', help='embeddings to search in; without it every embedding '
                           'is a query against all others (leave-one-out)')
    arguments.add_argument('--gallery-labels', help='labels of the gallery')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--metrics', nargs='+', default=['Recall@1', 'MAP@R', 'mAP'],
                           metavar='METRIC', help='(default: Recall@1 MAP@R mAP)')
    arguments.add_argument('--average', default='micro', metavar='micro|macro',
                           help='mean over queries (micro, the default) or over classes (macro)')
    arguments.add_argument('--out', metavar='RESULT.json', help='where to write the result')
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    if arguments.gallery_labels and not arguments.gallery:
        raise ValueError('--gallery-labels was given without --gallery.')
    from ..evaluation import evaluate

    queries = read_side(arguments.embeddings, arguments.labels, '--labels')
    gallery = Side(None, None, None)
    if arguments.gallery:
        gallery = read_side(arguments.gallery, arguments.gallery_labels, '--gallery-labels')
    result = evaluate(
        queries.embeddings, queries.labels, gallery.embeddings, gallery.labels,
        metrics=arguments.metrics, similarity=arguments.similarity, average=arguments.average,
        ids=queries.ids, gallery_ids=gallery.ids)
    report(result, arguments.out)


def report(result: dict[str, float], out: str | None) -> None:
    """Print the figures, and write them to a JSON file where one is named."""
    width = max(map(len, result))
    for name, value in result.items():
        print(f'{name:{width}}  {value:8.4f}' if isinstance(value, float)
              else f'{name:{width}}  {value:8d}')
    if out is not None:
        import json

        from ..gallery import write_text
        write_text(out, json.dumps(result, indent=2) + '\n')


def read_side(path: str, labels: str | None, option: str) -> Side:
    """The embeddings of one file, with the labels of another or their own.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or holds something else, or there are no labels.
    """
    from ..gallery import Gallery, is_gallery

    if not is_gallery(path):
        raise FileNotFoundError(f'There are no embeddings at {path!r}.')
    gallery = Gallery.load(path)
    own = read_labels(labels) if labels is not None else labels_of(gallery)
    if own is None:
        raise ValueError(f'{path!r} brings no labels: give a file of them with {option}.')
    if len(own) != len(gallery):
        raise ValueError(f'{labels or path!r} holds {len(own)} labels for the {len(gallery)} '
                         f'embeddings of {path!r}: give one each.')
    return Side(gallery.embeddings, own, gallery.ids if gallery.identified else None)


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
