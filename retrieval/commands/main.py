"""``retrieval COMMAND …``: the command line of the installed package."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    'train': 'train a retriever from a config',
    'train_on_embeddings': 'train a projection and a head on features that are extracted once',
    'fit_whitening': 'fit a whitening and store it in a checkpoint',
    'test': 'test a checkpoint',
    'dump_prototype': 'encode the prototype of a config into a gallery file',
    'gallery': 'look at, check, merge, filter and change galleries',
    'compare_galleries': 'compare the rankings of two galleries, and switch to the new one',
    'search': 'find the most similar images of a gallery',
    'find_duplicates': 'find near-duplicates within a gallery, or between two',
    'cluster': 'cluster a gallery',
    'calibrate': 'choose the threshold of a match from the labels of a gallery',
    'build_index': 'build an index over a gallery file',
    'tune_index': 'find the fastest index of a gallery within a recall, latency or memory budget',
    'evaluate': 'evaluate saved embeddings with labels',
    'browse_dataset': 'look at what a pipeline makes of its images',
    'print_config': 'print a config with everything that it inherits',
    'export_glyphs': 'write the embedded dataset as a folder of images',
    'demo': 'train, test and search the embedded dataset',
}


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {what}' for name, what in COMMANDS.items()]
    return '\n'.join(['usage: retrieval COMMAND [arguments], each with its own --help', '',
                      *lines])


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
    if name not in COMMANDS:
        from difflib import get_close_matches
        near = get_close_matches(name, COMMANDS)
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
