"""``retrieval COMMAND …``: the command line of the package.

A command is a module of this package with a ``main``; the first line of its docstring is its
summary. None of them imports anything heavy before it runs.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules


def commands() -> dict[str, str]:
    """The summary of every command by its name.

    Example:
        >>> commands()['train']
        'Train a retriever from a config.'
    """
    package = import_module('retrieval.commands')
    modules = {found.name: import_module(f'{package.__name__}.{found.name}')
               for found in iter_modules(package.__path__) if found.name != 'main'}
    return {name: (module.__doc__ or '').partition('\n')[0]
            for name, module in modules.items() if hasattr(module, 'main')}


def usage() -> str:
    """The list of commands."""
    found = commands()
    width = max(map(len, found))
    return '\n'.join(['usage: retrieval COMMAND [arguments], each with its own --help', '',
                      *(f'  {name:{width}}  {summary}' for name, summary in found.items())])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        return
    if arguments[0] == '--version':
        from .. import __version__
        print(__version__)
        return
    name = arguments[0].replace('-', '_')
    if name not in commands():
        from difflib import get_close_matches
        near = get_close_matches(name, commands())
        print(f'Unknown command {arguments[0]!r}.'
              + (f' Did you mean {" or ".join(near)}?' if near else '') + f'\n\n{usage()}',
              file=sys.stderr)
        raise SystemExit(2)
    command = import_module(f'retrieval.commands.{name}').main
    if argv is not None:
        command(arguments[1:])
        return
    sys.argv[1:] = arguments[1:]  # the process is this command
    command()
