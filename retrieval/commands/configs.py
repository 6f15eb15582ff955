"""List the configs that come with the package, or copy them to change them."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .command_line import CommandParser, Outcome, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('configs', description=f"""{__doc__}
        Commands take a name that is listed here in the place of a config file, and a config of
        one's own inherits it with _base_ = 'retrieval::NAME'.""")
    arguments.add_argument('part', nargs='*', help='only names with each of these parts in them, '
                           'such as a method and a dataset: triplet cub')
    arguments.add_argument('--copy', metavar='FOLDER',
                           help='copy them with all that they inherit into this folder, below '
                           'which they have the paths that they have here')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..config.shipped import config_names
    from ..registry import nearest_names

    names = config_names()
    chosen = [name for name in names if all(part in name for part in arguments.part)]
    if not chosen:
        words = {word for name in names for word in (name, *name.split('/'))}
        near = nearest_names(arguments.part[0], words)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ''
        raise ValueError(f"No shipped config has {' and '.join(map(repr, arguments.part))} in its "
                         f'name.{hint} Without a part, all {len(names)} are listed.')
    if arguments.copy is None:
        print('\n'.join(chosen))
        return dict(configs=chosen)
    copied = copy(chosen, Path(arguments.copy))
    print('\n'.join(map(str, copied)))
    return dict(configs=chosen, files=copied)


def copy(names: Sequence[str], out: Path) -> list[Path]:
    """Copy shipped configs and their bases below ``out``; the copies of ``names``.

    Raises:
        FileExistsError: a file with another text stands there; nothing was copied.
    """
    from ..config.shipped import find_config, shipped_folder, with_bases
    from ..files import write_text

    folder = shipped_folder().resolve()
    sources = {out / file.relative_to(folder): file.read_text(encoding='utf-8')
               for name in names for file in with_bases(find_config(name))}
    for file, text in sources.items():
        if file.exists() and file.read_text(encoding='utf-8') != text:
            raise FileExistsError(f'{str(file)!r} was changed since it was copied, and is not '
                                  'written over. Name another folder, or move it away.')
    for file, text in sources.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return [out / f'{name}.py' for name in names]


if __name__ == '__main__':
    main()
