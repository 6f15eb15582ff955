"""Look at, check and change gallery files and stores."""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line import CommandParser, Outcome, reports_errors

if TYPE_CHECKING:
    from ..gallery import Gallery, GalleryStore

_NAMES = {'gallery': 'a gallery file or store', 'store': 'a gallery store',
          'out': 'where the result is written: a file .safetensors, or a new store .gallery'}


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('gallery', description=__doc__)
    commands = arguments.add_subparsers(required=True, metavar='COMMAND')

    def command(run: Callable[[argparse.Namespace], Outcome], *names: str, text: str,
                many: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.strip('_'), help=text, description=text)
        added.set_defaults(run=run)
        for one in names:
            added.add_argument(one, help=_NAMES[one])
        if many:
            added.add_argument('galleries', nargs='+', help='gallery files or stores')
        return added

    command(_info, 'gallery', text='Print what a gallery holds and what made it.')
    command(_verify, 'gallery', text='Read everything and compare it with its checksums.')
    _add_dtype(command(_merge, 'out', text='Write the rows of several galleries as one.',
                       many=True))
    filtered = command(_filter, 'gallery', 'out', text='Write the rows that fit.')
    filtered.add_argument('--where', action='append', default=[], metavar='FILTER',
                          help='which rows, by metadata columns, `label` (by name) and `id`, such '
                          'as "price<20 and brand in (a, b)"; several must all hold')
    _add_ids(filtered, 'only the rows with these ids')
    _add_dtype(filtered)
    _add_dtype(command(_export, 'gallery', 'out',
                       text='Write a gallery as one file, or as a new store.'))
    imported = command(_import, text='Write embeddings that another model made, with the table '
                       'that goes with them, as a gallery.')
    imported.add_argument('vectors', help='embeddings (N, D): .npy, .npz, .pth, .safetensors or '
                          '.parquet')
    imported.add_argument('out', nargs='?', help=_NAMES['out'] + ' (default: the name of the '
                          'embeddings, with .safetensors)')
    imported.add_argument('--table', metavar='FILE', help='a CSV or Parquet file with a row for '
                          'each embedding, in their order; its columns become metadata')
    imported.add_argument('--id', metavar='COLUMN', help='the column of the ids')
    imported.add_argument('--label', metavar='COLUMN', help='the column of the labels')
    imported.add_argument('--embedding', metavar='NAME',
                          help='of a file with several parts, the one of the embeddings')
    imported.add_argument('--numbers', nargs='+', default=[], metavar='COLUMN',
                          help='columns of text to be kept as fractions, such as prices')
    _add_dtype(imported)
    command(_append, 'store', text='Add the rows of galleries to a store.', many=True)
    command(_update, 'store', text='Replace rows of a store by those of the same ids.', many=True)
    _add_ids(command(_remove, 'store', text='Remove rows from a store.'),
             'the rows with these ids', required=True)
    command(_compact, 'store', text='Write the rows that are left in a store as one shard.')
    return arguments


def _add_dtype(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument('--dtype', help='how embeddings are stored: float32, float16 or int8 '
                           '(default: as they are)')


def _add_ids(arguments: argparse.ArgumentParser, text: str, required: bool = False) -> None:
    arguments.add_argument('--ids', metavar='FILE', required=required,
                           help=f'{text}: a file with one a line, or a '
                           'column as TABLE.csv:COLUMN')


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    return arguments.run(arguments)


def _info(arguments: argparse.Namespace) -> Outcome:
    from ..gallery.shards import is_store

    found = facts(_load(arguments.gallery))
    print('\n'.join(f'{name + ":":16}{value}' for name, value in found.items()))
    if is_store(arguments.gallery):
        state = _store(arguments.gallery).state
        dead = sum(shard.rows - shard.live for shard in state.shards)
        print(f'{"store:":16}{len(state.shards)} shards, {dead} removed rows in them, '
              f'{state.generation} changes')
        found |= dict(shards=len(state.shards), removed=dead, changes=state.generation)
    return found


def facts(gallery: Gallery) -> dict[str, Any]:
    """A gallery described in words, by name; nothing of its rows is read but where it must."""
    made = {part: value[:16] + '…' if value else 'unknown'
            for part, value in gallery.fingerprint.as_dict().items()}
    names = gallery.label_names
    source = {name: value for name, value in gallery.source.items()
              if name not in ('config', 'settings')}
    versions = source.pop('versions', {})
    labels = 'none' if gallery.labels is None else f'{len(set(gallery.labels.tolist()))} classes'
    return {
        'rows': len(gallery), 'dimension': gallery.dim, 'dtype': gallery.dtype,
        'similarity': gallery.similarity or 'unknown',
        'normalised': 'yes' if gallery.normalised else 'no',
        'ids': f'such as {gallery.ids[0]!r}' if gallery.identified else 'none',
        'labels': labels + (f', such as {names[0]!r}' if names else ''),
        'metadata': ', '.join(gallery.metadata) or 'none', 'skipped': len(gallery.skipped),
        **made, **source, 'versions': ', '.join(f'{k} {v}' for k, v in versions.items())}


def _verify(arguments: argparse.Namespace) -> Outcome:
    gallery = _load(arguments.gallery)
    gallery.verify()
    print(f'{arguments.gallery}: {len(gallery)} rows are as they were written')
    return dict(rows=len(gallery))


def _merge(arguments: argparse.Namespace) -> Outcome:
    galleries = [_load(path) for path in arguments.galleries]
    return _write(galleries[0].merge(galleries), arguments)


def _filter(arguments: argparse.Namespace) -> Outcome:
    gallery = _load(arguments.gallery)
    if arguments.ids is not None:
        gallery = gallery.subset(gallery.find(_read_ids(arguments.ids)))
    for text in arguments.where:
        gallery = gallery.filter(text)
    return _write(gallery, arguments)


def _import(arguments: argparse.Namespace) -> Outcome:
    from ..gallery import import_gallery

    if arguments.out is None:
        arguments.out = str(Path(arguments.vectors).with_suffix('.safetensors'))
        if Path(arguments.out).exists():
            raise FileExistsError(f'There is {arguments.out!r} already: name what to write.')
    gallery = import_gallery(arguments.vectors, arguments.table, arguments.id, arguments.label,
                             arguments.embedding, arguments.numbers)
    written = _write(gallery, arguments)
    found = {name: value for name, value in facts(gallery).items()
             if name in ('dimension', 'ids', 'labels', 'metadata')}
    print('\n'.join(f'{name + ":":16}{value}' for name, value in found.items()))
    return written | found


def _export(arguments: argparse.Namespace) -> Outcome:
    return _write(_load(arguments.gallery), arguments)


def _append(arguments: argparse.Namespace) -> Outcome:
    store = _store(arguments.store)
    for path in arguments.galleries:
        store.append(_load(path))
    return _changed(store)


def _update(arguments: argparse.Namespace) -> Outcome:
    store = _store(arguments.store)
    for path in arguments.galleries:
        store.update(_load(path))
    return _changed(store)


def _remove(arguments: argparse.Namespace) -> Outcome:
    store = _store(arguments.store)
    store.remove(_read_ids(arguments.ids))
    return _changed(store)


def _compact(arguments: argparse.Namespace) -> Outcome:
    store = _store(arguments.store)
    store.compact()
    return _changed(store)


def _load(path: str) -> Gallery:
    from ..gallery import Gallery

    return Gallery.load(path)


def _store(path: str) -> GalleryStore:
    from ..gallery import GalleryStore

    if Path(path).is_file():
        raise ValueError(f'{path!r} is a gallery file, and only stores are changed in place: make '
                         f'one with `export {path} NAME.gallery`.')
    return GalleryStore.open(path)


def _read_ids(path: str) -> Any:
    from ..gallery import read_column

    return read_column(path, 'ids')


def _write(gallery: Gallery, arguments: argparse.Namespace) -> Outcome:
    from ..retrievers import write_gallery

    write_gallery(gallery, arguments.out, arguments.dtype)
    print(f'{len(gallery)} rows in {arguments.out}')
    return dict(files=[arguments.out], rows=len(gallery))


def _changed(store: GalleryStore) -> Outcome:
    print(store)
    return dict(files=[store.path], rows=len(store))


if __name__ == '__main__':
    main()
