"""Encode the prototype of a config once, and write it as a gallery that can be searched.

Under torchrun or Slurm each process encodes its share. A dump that was killed goes on when the same
command is run again: what it had encoded is in the folder OUT.parts.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .command_line import (
    CommandParser,
    Outcome,
    add_config_options,
    add_data_option,
    add_launcher,
    reports_errors,
)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('dump_prototype', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('config', help='a config file, the name of a shipped one, or a bundle')
    arguments.add_argument('checkpoint', nargs='?',
                           help='the checkpoint file, or a bundle; none where CONFIG is a bundle')
    arguments.add_argument('out', metavar='OUT', help='the gallery to write: a file .safetensors, '
                           'or a new store .gallery, which can grow')
    arguments.add_argument('--dtype', default='float32', help='how embeddings are stored: float32 '
                           '(default), float16 or int8')
    arguments.add_argument('--shard-rows', type=int, default=4096, metavar='N',
                           help='how many rows a process holds at most before it writes them; it '
                           'writes every few seconds too (default: 4096)')
    arguments.add_argument('--resume', action=argparse.BooleanOptionalAction, default=True,
                           help='go on with an unfinished dump of the same model and pipeline '
                           '(default); --no-resume deletes it')
    arguments.add_argument('--skip-unreadable', action='store_true',
                           help='leave out images that cannot be read, and list them in the '
                           'gallery, instead of stopping at the first')
    arguments.add_argument('--fill-index', action='store_true',
                           help="put the gallery into the database of the config's index too, such "
                           'as a Milvus collection, instead of what that holds')
    add_data_option(arguments)
    add_config_options(arguments)
    add_launcher(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_intermixed_args(argv)
    from ..retrievers import build_retriever, check_target
    from ..runs.named_model import named_model

    check_target(arguments.out)
    config, checkpoint = named_model(
        arguments.config, arguments.checkpoint, options=arguments.cfg_options,
        data=arguments.data, trust=arguments.trust)
    if config.model.get('prototype') is None:
        raise ValueError(f'{arguments.config!r} names no pictures to encode: give --data FOLDER to '
                         'a bundle, or a config with a gallery_dataloader.')
    if arguments.skip_unreadable:
        config.model.prototype.dataset.on_unreadable = 'skip'
    start_processes(arguments.launcher)
    model = build_retriever(config, checkpoint)
    if arguments.fill_index:
        check_database(model)
    outcome = dump(model, config, str(checkpoint), arguments.out, dtype=arguments.dtype,
                   shard_rows=arguments.shard_rows, resume=arguments.resume,
                   keep_parts=arguments.fill_index)
    if arguments.fill_index:
        fill_database(model, arguments.out)
    return outcome


def check_database(model: Any) -> None:
    """Connect to the database of a model's index.

    Raises:
        ValueError: its index is none that outlives the process by itself.
        OSError: the database cannot be reached.
    """
    index = model.new_index()
    if not index.capabilities.persistent:
        raise ValueError('--fill-index writes into a database, and the index of this config, '
                         f'{type(index).__name__}, is in none: write --cfg-options '
                         'model.index.type=retrieval.MilvusIndex model.index.uri=http://… '
                         'model.index.collection=….')
    index.close()


def fill_database(model: Any, out: str) -> None:
    """Put a gallery that all processes have written into the database of the model's index; each
    writes its share. What a kill left of the same rows there is gone on with.
    """
    from ..distributed import all_gather_list, rank
    from ..retrievers.encoded_parts import PartsFolder
    all_gather_list([])  # it is there when the first process has got so far
    model.search_in(out)
    model.prepare_prototype()
    with closing(model.holder.index) as index:
        if rank() == 0:
            PartsFolder.of(out).remove()
            print(f'{len(index)} rows in {index!r}')


def start_processes(launcher: str) -> None:
    """Join the other processes, where there are any."""
    from mmengine.dist import init_dist
    from torch import distributed

    from ..distributed import init_cpu_group
    init_cpu_group(launcher)
    if launcher != 'none' and not distributed.is_initialized():
        init_dist(launcher)


def dump(model: Any, config: Any, checkpoint: str, out: str, **options: Any) -> Outcome:
    """Write the gallery, with the config that searches it as data, and beside it the whole config.

    Args:
        options: ``dtype``, ``shard_rows``, ``resume`` and ``keep_parts`` of :func:`dump_in_parts`.

    Returns:
        What was written, on the first process.
    """
    from ..distributed import rank
    from ..files import write_text
    from ..gallery import Gallery
    from ..retrievers import RefusedElsewhere, dump_in_parts
    from ..runs.carried_config import carried
    from ..runs.fitted_checkpoint import config_beside

    beside = config_beside(out)
    try:
        dump_in_parts(model, out, config_file=beside.name, config=config.pretty_text,
                      settings=carried(config), checkpoint=str(Path(checkpoint).resolve()),
                      **options)
    except RefusedElsewhere:
        raise SystemExit(2) from None  # the first process says why
    if rank() != 0:
        return {}
    write_text(beside, config.pretty_text)
    gallery = Gallery.load(out)
    print(f'{len(gallery)} x {gallery.dim} embeddings in {out}; its config is {beside}')
    for image, reason in gallery.skipped.items():
        print(f'skipped {image}: {reason}')
    return dict(files=[out, beside], rows=len(gallery), dimension=gallery.dim,
                skipped=gallery.skipped)


if __name__ == '__main__':
    main()
