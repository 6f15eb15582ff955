"""Train a retriever from a config."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, add_config_options, add_launcher, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('train', description=__doc__)
    arguments.add_argument('config', help='a config file, or the name of a shipped one')
    arguments.add_argument('--work-dir', help='where logs and checkpoints go '
                           '(default: work_dirs/ and the name of the config)')
    arguments.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                           help='go on from a checkpoint, by default the last of the work dir')
    arguments.add_argument('--amp', action='store_true',
                           help='mixed precision; bfloat16 on a CPU')
    arguments.add_argument('--no-validate', action='store_true', help='do not validate')
    arguments.add_argument('--auto-scale-lr', action='store_true',
                           help='scale the learning rate by the actual total batch size over '
                           'auto_scale_lr.base_batch_size of the config')
    add_config_options(arguments)
    add_launcher(arguments)
    return arguments


def configure(arguments: argparse.Namespace) -> Any:
    """The config with what the command line asks for."""
    from ..runs.config import load_config, use_amp

    config = load_config(arguments.config, arguments.cfg_options, arguments.work_dir)
    if not config.get('train_dataloader') or not config.get('optim_wrapper'):
        raise ValueError(f'The config {arguments.config!r} has no train_dataloader or no '
                         'optim_wrapper, so there is nothing to train.')
    if arguments.amp:
        use_amp(config)
    if arguments.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if arguments.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            raise ValueError('--auto-scale-lr wants auto_scale_lr=dict(base_batch_size=…) in the '
                             'config: the total batch size that its learning rate was set for.')
        config.auto_scale_lr.enable = True
    if arguments.resume:
        config.resume = True
        config.load_from = None if arguments.resume == 'auto' else arguments.resume
    return config


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..distributed import unwrapped
    from ..hooks.finite import last_written
    from ..retrievers import check_backbone, check_model, read_state_dict
    from ..runs.config import build_runner
    from ..runs.training import train

    config = configure(arguments)
    start = config.get('load_from')
    if start and '://' not in start and not Path(start).is_file():
        raise FileNotFoundError(f'There is no checkpoint {start!r} to start from.')
    runner = build_runner(config, arguments.launcher)
    start = config.get('load_from')  # of a resumed run, the checkpoint that was found
    if start and '://' not in start:
        check = check_model if config.get('resume') else check_backbone
        check(unwrapped(runner.model), read_state_dict(start), start)
    train(runner)
    last = last_written(runner)
    return dict(files=[last] if last else [], work_dir=runner.work_dir, iterations=runner.iter,
                metrics=last_metrics(runner))


def last_metrics(runner: Any) -> dict[str, float]:
    """The results of the last validation by name; empty where there was none."""
    return {name.removeprefix('val/'): history.current()
            for name, history in runner.message_hub.log_scalars.items() if name.startswith('val/')}


if __name__ == '__main__':
    main()
