"""Say what rows a Milvus collection holds and keeps, and lead its name back to those of before."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from .command_line import CommandParser, Outcome, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('collection', description=__doc__, epilog='Rows are kept by migrate '
                              '--fill-index, and by whatever replaces them with '
                              'model.index.keep=True.')
    arguments.add_argument('config', help='a config whose index is in Milvus, or any one, with '
                           '--cfg-options model.index.type=retrieval.MilvusIndex '
                           'model.index.uri=http://… model.index.collection=…')
    change = arguments.add_mutually_exclusive_group()
    change.add_argument('--undo', action='store_true', help='lead the name back to the rows that '
                        'are kept, in one step; those that it leads to now are kept in turn, so '
                        'that the next --undo redoes it')
    change.add_argument('--drop-kept', action='store_true', help='drop the rows that are kept, '
                        "which frees the server's memory; there is no way back then")
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..runs.named_model import named_config

    with closing(milvus_index(named_config(arguments.config, arguments.cfg_options))) as index:
        if arguments.undo:
            index.undo()
        if arguments.drop_kept:
            index.drop_kept()
        return standing(index)


def milvus_index(config: Any) -> Any:
    """The Milvus index of a config.

    Raises:
        ValueError: its index is another one.
        OSError: the database cannot be reached.
    """
    from ..index import MilvusIndex
    from ..registry import INDEXES

    settings = dict(config.model.get('index') or {})
    kind = INDEXES.get(settings['type']) if isinstance(settings.get('type'), str) else None
    if kind is None or not issubclass(kind, MilvusIndex):
        raise ValueError('The index of this config is in no Milvus: write --cfg-options '
                         'model.index.type=retrieval.MilvusIndex model.index.uri=http://… '
                         'model.index.collection=….')
    settings.setdefault('similarity', config.model.get('similarity_fn', 'cosine_similarity'))
    return INDEXES.build(settings)


def standing(index: Any) -> Outcome:
    """Print what rows an index holds and keeps, and of which models."""
    kept, fingerprint = index.kept(), index.fingerprint
    print(f'{index!r} holds {len(index):,} rows{_of(fingerprint)}')
    print('nothing is kept from before' if kept is None else
          f'kept from before: {kept[0]:,} rows{_of(kept[1])}; back: retrieval collection CONFIG '
          '--undo')
    return dict(rows=len(index), model=fingerprint.weights, kept=0 if kept is None else kept[0],
                kept_model=None if kept is None else kept[1].weights)


def _of(fingerprint: Any) -> str:
    return '' if fingerprint.weights is None else f' of the model {fingerprint.weights[:12]}'


if __name__ == '__main__':
    main()
