"""Build an index over a gallery once, for the searches that open it."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..config.options import ReadOptions
from .command_line import CommandParser, Outcome, reports_errors

_TOGETHER = 2 ** 16  # rows that are added between two steps of the bar
_OF_FAISS = ('factory', 'search_parameters', 'train_size', 'rescore', 'rescore_factor',
             'rescore_dtype', 'on_disk')


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'build_index', description=__doc__,
        epilog='The index is used by model.index = dict(type=…, path=OUT), and refused over '
        'another gallery.')
    arguments.add_argument('gallery', help='a gallery file that dump_prototype wrote, or a saved '
                           'tensor (N, D)')
    arguments.add_argument('out', metavar='OUT', help='the index file to write')
    arguments.add_argument('--config', metavar='FILE', help='a file with `index = dict(…)`, such '
                           'as tune_index writes; the options below override it')
    arguments.add_argument('--index', metavar='TYPE',
                           help='the type of index (default: FaissIndex)')
    arguments.add_argument('--similarity', metavar='NAME', help='cosine_similarity (default), '
                           'inner_product or euclidean: the one of the retriever')
    faiss = arguments.add_argument_group('FaissIndex')
    faiss.add_argument('--factory', help='faiss\'s factory string: "IVF1024,Flat", "HNSW32" …')
    faiss.add_argument('--search-parameters', nargs='+', action=ReadOptions, metavar='NAME=VALUE',
                       help='nprobe=32, efSearch=64 …')
    faiss.add_argument('--train-size', type=int, metavar='N', help='rows to train on at most '
                       '(default: 64 for each centroid, at least 65,536)')
    faiss.add_argument('--seed', type=int, help='of the training sample (default: 0)')
    faiss.add_argument('--rescore', action='store_true', default=None,
                       help='keep the vectors and score the candidates exactly')
    faiss.add_argument('--rescore-factor', type=float, metavar='F',
                       help='how many candidates a result are scored (default: 4)')
    faiss.add_argument('--rescore-dtype', metavar='DTYPE', help='float16 (default) or float32')
    faiss.add_argument('--on-disk', metavar='FOLDER', help='keep the inverted lists in a file in '
                       'this folder while building, and in a file beside OUT afterwards')
    arguments.add_argument('--options', nargs='+', action=ReadOptions, metavar='NAME=VALUE',
                           help='further arguments of the type of index')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    import time
    from pathlib import Path

    arguments = parser().parse_args(argv)
    from ..gallery import Gallery
    from ..index import gallery_digest
    from ..progress import progress_bar

    index = build(index_config(arguments))
    gallery = Gallery.load(arguments.gallery)
    start = time.perf_counter()
    with progress_bar('Building', len(gallery), 'row') as bar:
        if hasattr(index, 'train'):  # by all rows, before a part of them is added
            index.train(gallery.embeddings)
        # another one trains itself by the first rows that it gets
        together = _TOGETHER if hasattr(index, 'train') else len(gallery)
        for first in range(0, len(gallery), together):
            rows = slice(first, first + together)
            index.add(gallery.embeddings[rows], gallery.ids[rows])
            bar.update(len(gallery.ids[rows]))
    index.gallery_digest = gallery_digest(gallery.embeddings, gallery.ids)
    index.save(arguments.out)
    seconds = time.perf_counter() - start
    files = files_of(Path(arguments.out))
    size = sum(file.stat().st_size for file in files)
    print(f'{index!r} built and written in {seconds:.1f} s, {size / 1e6:.1f} MB\n\n'
          f'index = dict(type={type(index).__name__!r}, path={arguments.out!r})')
    return dict(files=files, index=dict(type=type(index).__name__, path=arguments.out),
                rows=len(index), bytes=size, build_seconds=seconds)


def files_of(path: Any) -> list[Any]:
    """The index file, and its lists where they stand beside it."""
    return [path, *(file for file in path.parent.iterdir()
                    if file.name.startswith(f'{path.name}.') and file.name.endswith('.lists'))]


def index_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """The config of the index that the arguments describe.

    Raises:
        FileNotFoundError: the config file is missing.
        ValueError: it has no `index`, or an option is not one of this type of index.
    """
    config = read_fragment(arguments.config) if arguments.config else {}
    if arguments.index is not None:
        config['type'] = arguments.index
    config.setdefault('type', 'retrieval.FaissIndex')
    given = {name: getattr(arguments, name) for name in (*_OF_FAISS, 'seed', 'similarity')}
    config.update({name: value for name, value in given.items() if value is not None})
    config.update(arguments.options or {})
    if 'path' in config:
        raise ValueError('The config reads its index from a file (`path`): there is nothing to '
                         'build.')
    return config


def read_fragment(path: str) -> dict[str, Any]:
    """`index` of a config file, or `model.index`."""
    from mmengine.config import Config

    from ..config.reading import read_config

    config = read_config(path)
    found = config.get('index') or (config.get('model') or {}).get('index')
    if not found:
        raise ValueError(f'The config {path!r} has neither `index` nor `model.index`.')
    return Config(dict(index=found)).to_dict()['index']


def build(config: dict[str, Any]) -> Any:
    """The empty index of a config.

    Raises:
        ValueError: there is no such type of index, or it takes no such argument.
    """
    import inspect

    from ..registry import INDEXES

    kind = INDEXES.get(config['type'])
    accepted = inspect.signature(kind).parameters
    unknown = sorted(set(config) - {'type'} - set(accepted))
    if unknown:
        raise ValueError(f'{kind.__name__} takes no {", ".join(unknown)}. Its arguments are '
                         f'{", ".join(accepted)}.')
    return INDEXES.build(config)


if __name__ == '__main__':
    main()
