"""Export an encoder for ONNX Runtime, OpenVINO or TorchScript, and say what that changes.

Images go in as uint8, embeddings come out, in batches of any size: the normalisation is inside.
Before anything is kept, both encoders encode pictures, and it is told how many first results
change and how much mAP is lost.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('export', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('config', nargs='?', help='the config file, or a bundle')
    arguments.add_argument('checkpoint', nargs='?', help='the checkpoint file, where a config '
                           'stands before it')
    arguments.add_argument('out', metavar='OUT', help='the folder to write')
    arguments.add_argument('--encoder', metavar='NAME', help='a pretrained encoder by its name, in '
                           'the place of the config, such as efficientnet-lite0')
    arguments.add_argument('--format', default='onnx', metavar='onnx|openvino|torchscript',
                           help='what is to run it (default: onnx)')
    arguments.add_argument('--precision', default='fp32', metavar='fp32|fp16|int8',
                           help='fp32 (default); fp16, weights of half the size; int8, a quarter '
                           'of it, and fast where the processor has instructions for it')
    arguments.add_argument('--pictures', metavar='FOLDER', help='what both encoders are compared '
                           'on, best in folders of classes (default: the pictures of the config)')
    arguments.add_argument('--trust', action='store_true', help='build whatever a bundle names: '
                           'for one of your own, or of somebody whom you trust to run code here')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_intermixed_args(argv)
    from ..export.formats import check_formats
    from ..export.write_export import check_target, write_export
    from ..retrievers import build_retriever
    from ..runs.config import test_pipeline
    from ..runs.named_model import named_model

    check_formats(arguments.format, arguments.precision)
    check_target(arguments.out)
    if arguments.encoder is not None and arguments.checkpoint is None:  # a file of its weights
        arguments.config, arguments.checkpoint = None, arguments.config
    config, checkpoint = named_model(arguments.config, arguments.checkpoint, arguments.encoder,
                                     options=arguments.cfg_options, trust=arguments.trust)
    pipeline = test_pipeline(config)
    dataset = pictures(arguments.pictures, pipeline, config)
    model = build_retriever(config, checkpoint, device='cpu')
    parity = write_export(arguments.out, model, pipeline, dataset, arguments.format,
                          arguments.precision)
    from dataclasses import asdict

    print(parity.report())
    size = sum(path.stat().st_size for path in Path(arguments.out).glob('encoder.*'))
    print(f'{arguments.out}: {arguments.format}, {arguments.precision}, {size / 1e6:.1f} MB')
    return dict(files=[arguments.out], format=arguments.format, precision=arguments.precision,
                bytes=size, parity=asdict(parity))


def pictures(folder: str | None, pipeline: list[dict[str, Any]], config: Any) -> Any:
    """The dataset that an export is measured on: a folder, else the one that is searched.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: neither is there.
    """
    from ..search.prototypes import as_dataset
    from .folders import check_exists, config_dataset

    if folder is not None:
        check_exists(folder)
        return as_dataset(os.path.abspath(folder), pipeline, 'skip')
    dataset = config_dataset(config)
    if dataset is None:
        raise ValueError('An export is measured on pictures, and the pictures of the model are not '
                         'here: give --pictures FOLDER, best with a folder for each class.')
    return dataset


if __name__ == '__main__':
    main()
