"""Look for what will go wrong: in this installation, and, with a config, in its run."""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from .command_line import CommandParser, Outcome, Unmet, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'doctor', description=__doc__, epilog='Each finding is ok, a warning or an error, with '
        'what to do about it. Exit status 1: there are errors.')
    arguments.add_argument('config', nargs='?', help='a config file, or the name of a shipped one: '
                           'everything in it is built, and one batch each of training, queries and '
                           'gallery goes through it; nothing is kept')
    arguments.add_argument('--milvus', metavar='URI', help='a Milvus that is to be reached')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from contextlib import redirect_stdout
    from dataclasses import asdict
    from itertools import chain
    from sys import stderr, stdout

    from ..doctor import examine_config, examine_machine

    found, out = [], stdout
    with redirect_stdout(stderr):  # what libraries print is no finding
        for one in chain(examine_machine(milvus=arguments.milvus),
                         examine_config(arguments.config, arguments.cfg_options)
                         if arguments.config else ()):
            found.append(one)
            print(one, file=out, flush=True)
    counts = {level: sum(one.level == level for one in found) for level in ('warning', 'error')}
    print('\n' + ', '.join(f'{count} {level}{"s" * (count != 1)}'
                           for level, count in counts.items()) + '.')
    outcome = dict(errors=counts['error'], warnings=counts['warning'],
                   findings=list(map(asdict, found)))
    if counts['error']:
        raise Unmet(outcome)
    return outcome


if __name__ == '__main__':
    main()
