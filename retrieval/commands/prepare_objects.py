"""Render a thousand objects in many views, light and background, to train and measure on."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checks import whole_number
from .command_line import CommandParser, Outcome, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'prepare_objects', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Wants pybullet (pip install pybullet). Writes DIR/images/NNN/V.jpg, which the '
        'dataset `Objects` reads,\nand DIR/licence.txt. Objects that are there already are not '
        'rendered again.')
    arguments.add_argument('out', metavar='DIR', help='where they go')
    arguments.add_argument('--objects', type=int, metavar='N',
                           help='only the first N objects, to try it (default: all)')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..datasets.benchmarks.objects import VIEWS
    from ..datasets.object_views import ObjectRenderer, licence
    from ..files import new_folder, write_text
    from ..progress import progress_bar

    out, renderer = Path(arguments.out), ObjectRenderer()
    numbers = renderer.objects
    if arguments.objects is not None:
        numbers = numbers[:whole_number('--objects', arguments.objects)]
    write_text(out / 'licence.txt', licence())
    with progress_bar('Rendering', len(numbers), 'object') as bar:
        for number in numbers:
            folder = out / 'images' / f'{number:03}'
            if not folder.exists():
                folder.parent.mkdir(exist_ok=True)
                with new_folder(folder) as making:
                    for view, picture in enumerate(renderer.views(number, VIEWS)):
                        picture.save(making / f'{view}.jpg', quality=92)
            bar.update()
    print(f'{len(numbers)} objects in {VIEWS} views each: {out}')
    return dict(files=[out], objects=len(numbers), views=VIEWS)


if __name__ == '__main__':
    main()
