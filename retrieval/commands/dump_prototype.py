"""Encode the prototype of a config once, and write it as a gallery that can be searched."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .command_line import add_config_options, add_launcher, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser('dump_prototype', description=__doc__)
    arguments.add_argument('config', help='the config file')
    arguments.add_argument('checkpoint', help='the checkpoint file')
    arguments.add_argument('out', metavar='OUT.safetensors', help='the gallery to write')
    arguments.add_argument('--skip-unreadable', action='store_true',
                           help='leave out images that cannot be read, and list them in the '
                           'gallery, instead of stopping at the first')
    add_config_options(arguments)
    add_launcher(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    if not arguments.out.endswith('.safetensors'):
        raise ValueError(f'A gallery is written as a safetensors file; got {arguments.out!r}. Give '
                         'a name that ends in .safetensors.')
    from .configuration import build_model, load_config

    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.skip_unreadable:
        config.model.prototype.dataset.on_unreadable = 'skip'
    start_processes(arguments.launcher)
    model = build_model(config, arguments.checkpoint)
    dump(model, config, arguments.checkpoint, arguments.out)


def start_processes(launcher: str) -> None:
    """Join the other processes, where there are any."""
    from mmengine.dist import init_dist

    from retrieval.distributed import init_cpu_group, world_size
    init_cpu_group(launcher)
    if launcher != 'none' and world_size() == 1:
        init_dist(launcher)


def dump(model: Any, config: Any, checkpoint: str, out: str) -> None:
    """Write the gallery, and beside it the whole config that it was made with."""
    from pathlib import Path

    from retrieval.distributed import rank
    from retrieval.gallery import write_text

    path = Path(out)
    beside = path.with_suffix('.config.py')
    model.dump_prototype(out, config_file=beside.name, config=config.pretty_text,
                         checkpoint=str(Path(checkpoint).resolve()))
    if rank() == 0:
        write_text(beside, config.pretty_text)
        gallery = model.gallery
        print(f'{len(gallery)} x {gallery.dim} embeddings in {out}; its config is {beside}')
        for image, reason in gallery.skipped.items():
            print(f'skipped {image}: {reason}')


if __name__ == '__main__':
    main()
