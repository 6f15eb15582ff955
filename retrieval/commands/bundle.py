"""Write an encoder with all that a search with it needs, as data, into a folder or a .zip.

The bundle can be given in the place of config and checkpoint, opened with `retrieval.load`, and put
on the Hugging Face hub as it is.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('bundle', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('config', nargs='?', help='the config file')
    arguments.add_argument('checkpoint', nargs='?', help='the checkpoint file')
    arguments.add_argument('out', metavar='OUT', help='the folder to write, or a file .zip')
    arguments.add_argument('--encoder', metavar='NAME', help='a pretrained encoder by its name, in '
                           'the place of the config; a checkpoint beside it is a local file with '
                           'its weights')
    arguments.add_argument('--gallery', help='a gallery that the model made: the bundle can be '
                           'searched by itself then')
    arguments.add_argument('--index', help='an index over the gallery that build_index wrote')
    arguments.add_argument('--calibration', metavar='FILE.json',
                           help='a calibration that calibrate wrote')
    arguments.add_argument('--metrics', metavar='FILE.json', help='what `test --out` wrote, for '
                           'the model card (default: those of a gallery with labels, each row '
                           'searched among the others)')
    arguments.add_argument('--trust', action='store_true', help='let the config name types that '
                           'are not of this package; the bundle then opens with --trust only')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_intermixed_args(argv)
    from ..runs.named_model import named_model
    from ..runs.write_bundle import check_target, write_bundle

    check_target(arguments.out)
    metrics = None if arguments.metrics is None else read_metrics(arguments.metrics)
    if arguments.encoder is not None and arguments.checkpoint is None:  # a file of its weights
        arguments.config, arguments.checkpoint = None, arguments.config
    config, checkpoint = named_model(arguments.config, arguments.checkpoint, arguments.encoder,
                                     options=arguments.cfg_options)
    bundle = write_bundle(
        arguments.out, config, checkpoint, gallery=arguments.gallery, index=arguments.index,
        calibration=arguments.calibration, metrics=metrics,
        measured_on=f'the test set of {Path(str(arguments.config)).name}' if metrics else None,
        trust=arguments.trust)
    size = sum(path.stat().st_size for path in bundle.folder.iterdir())
    print(f'{arguments.out}: {bundle.manifest["embedding_size"]} numbers an image, '
          f'{size / 1e6:.1f} MB')
    for name, value in bundle.manifest['metrics'].items():
        print(f'{name}  {value:.2f}')
    return dict(files=[arguments.out], embedding_size=bundle.manifest['embedding_size'],
                bytes=size, metrics=bundle.manifest['metrics'])


def read_metrics(path: str) -> dict[str, float]:
    """The numbers of a JSON file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of metrics.
    """
    import json
    import math

    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file of metrics {path!r}: `test --out` writes one.')
    try:
        found: Any = json.loads(Path(path).read_text(encoding='utf-8'))
        numbers = {str(name): float(value) for name, value in found.items()
                   if isinstance(value, (int, float)) and math.isfinite(value)
                   and not str(name).startswith('num_')}
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{path!r} is no JSON of metrics by name.') from error
    if not numbers:
        raise ValueError(f'{path!r} holds no metric: give what `test --out` wrote.')
    return numbers


if __name__ == '__main__':
    main()
