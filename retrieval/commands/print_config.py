"""Print a config as it is after its bases and the command line's options."""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from .command_line import CommandParser, Outcome, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('print_config', description=__doc__)
    arguments.add_argument('config', help='a config file, the name of a shipped one, or a bundle')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..runs.named_model import named_config

    config = named_config(arguments.config, arguments.cfg_options)
    print(config.pretty_text)
    return dict(config=config.to_dict())


if __name__ == '__main__':
    main()
