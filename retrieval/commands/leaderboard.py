"""Run encoders under the protocol of every benchmark whose data there is, and write the table."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .command_line import CommandParser, Outcome, reports_errors
from .folders import cache_name

_HEAD = """\
# Leaderboard

Percent, and in brackets the interval of 95 % over the queries (percentile bootstrap). Each encoder as it is, with
its own preprocessing; `numbers` are those of an embedding.

"""  # noqa: E501


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    from ..runs.leaderboard import BENCHMARKS

    folders = ', '.join(one.folders[0] for one in BENCHMARKS.values() if one.folders)
    arguments = CommandParser(
        'leaderboard', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Looks below the data root for\n' + _wrapped(folders) + '\nGlyphs needs no data. '
        'Writes OUT/leaderboard.md, OUT/results/ENCODER/BENCHMARK.json, and the embeddings\nunder '
        'OUT/embeddings, so that the same command goes on where it was ended.')
    arguments.add_argument('--encoders', nargs='+', required=True, metavar='NAME',
                           help='pretrained encoders by their names, bundles, exported encoders')
    arguments.add_argument('--data-root', default='data', metavar='FOLDER',
                           help='where the folders of the benchmarks are (default: data)')
    arguments.add_argument('--benchmarks', nargs='+', metavar='NAME',
                           help='only these (default: all whose data is there)')
    arguments.add_argument('--out', default='work_dirs/leaderboard', metavar='OUT',
                           help='(default: work_dirs/leaderboard)')
    arguments.add_argument('--num-workers', type=int, default=2, metavar='N',
                           help='processes that read images (default: 2)')
    arguments.add_argument('--trust', action='store_true',
                           help="build whatever a bundle's config names")
    return arguments


def _wrapped(text: str) -> str:
    import textwrap
    return textwrap.fill(text, 100)


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..checks import whole_number
    from ..retrievers import build_retriever
    from ..runs.config import test_pipeline
    from ..runs.leaderboard import benchmarks_there, measure, read_entry, write_entry
    from ..runs.named_model import named_model

    whole_number('--num-workers', arguments.num_workers, 0)
    there = benchmarks_there(arguments.data_root, arguments.benchmarks)
    named = {name: named_model(None, encoder=name, trust=arguments.trust)
             for name in arguments.encoders}
    out = Path(arguments.out)
    measured: list[str] = []
    left_out: list[str] = []
    for name, (config, checkpoint) in named.items():
        try:
            model = build_retriever(config, checkpoint)
        except (OSError, ImportError, ValueError) as error:
            left_out.append(f'{name}: {error}')
            continue
        pipeline = test_pipeline(config)
        model.search_in(pipeline=pipeline)
        own = model.fingerprint().as_dict()
        for benchmark, root in there:
            path = out / 'results' / cache_name(name) / f'{benchmark.name}.json'
            entry = read_entry(path)
            if entry is None or entry.fingerprint != own:
                try:
                    entry = measure(model, name, benchmark, root, pipeline,
                                    out / 'embeddings' / cache_name(name), arguments.num_workers)
                except (OSError, ValueError) as error:
                    left_out.append(f'{name} on {benchmark.name}: {error}')
                    continue
                write_entry(entry, path)
                _write_table(out)
            first = next(iter(entry.metrics))
            print(f'{name} on {benchmark.name}: {first} {entry.text(first)}', flush=True)
            measured.append(name)
    if left_out and not measured:
        raise ValueError('Nothing was measured. ' + ' '.join(left_out))
    if measured:
        _write_table(out)
        print(out / 'leaderboard.md')
    for one in left_out:
        print(f'left out: {one}', file=sys.stderr)
    return dict(files=[out / 'leaderboard.md'] if measured else [],
                encoders=list(dict.fromkeys(measured)),
                benchmarks=[benchmark.name for benchmark, _ in there], left_out=left_out)


def _write_table(out: Path) -> None:
    """Write the table of all that was ever measured there."""
    from ..files import write_text
    from ..runs.leaderboard import leaderboard_table, read_entry

    entries = [entry for path in sorted((out / 'results').glob('*/*.json'))
               if (entry := read_entry(path)) is not None]
    write_text(out / 'leaderboard.md', _HEAD + leaderboard_table(entries) + '\n')


if __name__ == '__main__':
    main()
