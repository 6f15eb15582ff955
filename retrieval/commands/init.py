"""Look at a folder of classes or a table, and write a config of a dozen lines for it."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .command_line import CommandParser, Outcome, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('init', description=__doc__)
    arguments.add_argument('source', metavar='FOLDER|CSV', help='a folder with one folder a class, '
                           'or with train and test that have such folders; or a table with a '
                           'column of paths and one of labels. A table without a split is written '
                           'anew with one, beside the config')
    arguments.add_argument('out', metavar='OUT.py', nargs='?', help='the config to write (default: '
                           'the name of the folder or table, here)')
    arguments.add_argument('--path', metavar='COLUMN', help='of a table, the column of the paths')
    arguments.add_argument('--label', metavar='COLUMN', help='of a table, that of the labels')
    arguments.add_argument('--data-root', metavar='FOLDER', help='of a table, where its relative '
                           'paths start (default: its own folder)')
    arguments.add_argument('--test-share', type=float, default=0.5, metavar='SHARE',
                           help='of the classes that are kept for testing (default: 0.5)')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    import sys

    from ..files import write_text
    from ..runs.proposal import propose

    source = Path(arguments.source)
    out = Path(arguments.out or f'{source.resolve().stem}.py')
    if out.suffix != '.py':
        raise ValueError(f'A config is a Python file: name it .py, not {str(out)!r}.')
    table = out.with_suffix('.csv').resolve()
    made = propose(source, str(table), arguments.path, arguments.label, arguments.test_share,
                   arguments.data_root)
    for file in (out, *([table] if made.table is not None else [])):
        if file.exists():
            raise FileExistsError(f'There is {str(file)!r} already, and it is not written over: '
                                  'name another OUT.py.')
    out.parent.mkdir(parents=True, exist_ok=True)
    if made.table is not None:
        write_text(table, made.table)
    write_text(out, made.config)
    for warning in made.warnings:
        print(f'Note: {warning}', file=sys.stderr)
    print(f'{made.config}\n{out} holds this'
          + (f', and {table} the table with its split' if made.table else '')
          + f'.\nNext: retrieval doctor {out}, then retrieval train {out}')
    return dict(config=out, table=table if made.table else None, warnings=made.warnings,
                **made.seen)


if __name__ == '__main__':
    main()
