"""Test a checkpoint: the metrics of the config, and what was found for each query."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .command_line import (
    CommandParser,
    Outcome,
    add_config_options,
    add_data_option,
    add_launcher,
    reports_errors,
)
from .report import check_out, report


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('test', description=__doc__)
    arguments.add_argument('config', help='a config file, the name of a shipped one, or a bundle')
    arguments.add_argument('checkpoint', nargs='?',
                           help='the checkpoint file, or a bundle; none where CONFIG is a bundle')
    arguments.add_argument('--work-dir', help='where the log goes '
                           '(default: work_dirs/ and the name of the config)')
    arguments.add_argument('--out', metavar='FILE.json', help='write the results there')
    arguments.add_argument('--out-item', choices=['metrics', 'pred'], default='metrics',
                           help='what to write: the metrics, or for each query the rows, ids and '
                           'scores that were found (default: metrics)')
    arguments.add_argument('--show-dir', help='draw the rankings of some queries there')
    arguments.add_argument('--report', nargs='?', const='', metavar='FILE.html', help='write a '
                           'report to look at (default: report.html in the work dir)')
    arguments.add_argument('--ignore-fingerprint', action='store_true',
                           help='search a gallery file that another model or pipeline made')
    add_data_option(arguments)
    add_config_options(arguments)
    add_launcher(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_intermixed_args(argv)
    if arguments.out and not arguments.out.endswith('.json'):
        raise ValueError(f'--out is written as JSON; got {arguments.out!r}. Give a name that ends '
                         'in .json.')
    if arguments.report:
        check_out(arguments.report)
    from ..distributed import rank, unwrapped
    from ..retrievers import check_encoder, read_state_dict
    from ..runs.config import build_runner
    from ..runs.named_model import named_model
    from ..runs.training import test as tested

    config, checkpoint = named_model(
        arguments.config, arguments.checkpoint, options=arguments.cfg_options,
        work_dir=arguments.work_dir, data=arguments.data, trust=arguments.trust)
    if not config.get('test_dataloader') or not config.get('test_evaluator'):
        raise ValueError(f'The config {arguments.config!r} has no test_dataloader or no '
                         'test_evaluator, so there is nothing to test (a bundle wants --data '
                         'FOLDER).')
    if arguments.ignore_fingerprint:
        config.model.check_fingerprint = False
    if arguments.show_dir:
        config.custom_hooks.append(
            dict(type='retrieval.RankingDrawingHook', out_dir=arguments.show_dir))
    if arguments.out and arguments.out_item == 'pred':
        config.custom_hooks.append(
            dict(type='retrieval.RecordPredictionsHook', out=arguments.out))
    config.load_from, config.resume = checkpoint, False
    if arguments.report is not None:
        from ..report import run_of_test, with_embedding_metrics
        with_embedding_metrics(config)
    runner = build_runner(config, arguments.launcher)
    check_encoder(unwrapped(runner.model),
                  read_state_dict(str(checkpoint)), str(checkpoint))
    files = [arguments.out] if arguments.out else []
    if arguments.report is None:
        metrics = tested(runner)
    else:
        run, metrics = run_of_test(runner, str(checkpoint))
        if rank() == 0:
            files += report(run, arguments.report or os.path.join(
                runner.work_dir, 'report.html'))['files']
    if arguments.out and arguments.out_item == 'metrics':
        _write_metrics(metrics, arguments.out)
    return dict(files=files, work_dir=runner.work_dir, metrics=metrics)


def _write_metrics(metrics: dict[str, float], path: str) -> None:
    from ..distributed import rank
    from ..files import write_json
    if rank() == 0:
        write_json(path, {name: float(value) for name, value in metrics.items()}, indent=2)


if __name__ == '__main__':
    main()
