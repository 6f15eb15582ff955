"""Make altered copies of photographs, to measure near-duplicates, crops and "no match" on."""
from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors

PACKAGES = ('gnome-backgrounds', 'mate-backgrounds', 'lomiri-wallpapers-16.04',
            'lomiri-wallpapers-20.04', 'plasma-workspace-wallpapers', 'ukui-wallpapers',
            'sway-backgrounds')
#: Folders of Python packages, where those are installed.
SAMPLES = ('skimage/data', 'sklearn/datasets/images')
DISTRACTORS = ('tuxpaint-stamps-default',)
COLUMNS = ('path', 'label', 'split', 'is_query', 'is_gallery', 'alteration', 'seen', 'place')
EDGE = 640  # the longer one of a picture, in pixels
SMALLEST = 200  # the shorter one that a photograph has at least


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'prepare_copies', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Writes DIR/copies.csv, DIR/photographs, DIR/copies, DIR/distractors, and '
        'DIR/licences with\nwhat the packages say of themselves. Every fifth photograph is not in '
        'the gallery: its copies\nhave no match.')
    arguments.add_argument('out', metavar='DIR', help='where it goes; it must be new or empty')
    arguments.add_argument('--packages', nargs='*', metavar='NAME', default=list(PACKAGES),
                           help='Debian packages with photographs, installed or else downloaded by '
                           f'apt-get (default: {" ".join(PACKAGES)})')
    arguments.add_argument('--samples', nargs='*', metavar='PACKAGE/FOLDER', default=list(SAMPLES),
                           help='folders of Python packages, left out where one is not installed '
                           f'(default: {" ".join(SAMPLES)})')
    arguments.add_argument('--folders', nargs='*', metavar='FOLDER', default=[],
                           help='folders of photographs of your own, beside the packages')
    arguments.add_argument('--distractors', nargs='*', metavar='NAME', default=list(DISTRACTORS),
                           help='packages or folders whose pictures only fill the gallery '
                           f'(default: {" ".join(DISTRACTORS)})')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    import csv
    import tempfile

    from ..files import new_folder

    arguments = parser().parse_args(argv)
    with new_folder(arguments.out) as out, tempfile.TemporaryDirectory() as unpacked:
        def folders(names: Sequence[str]) -> list[Path]:
            return [Path(name) if Path(name).is_dir() else
                    source(name, Path(unpacked), out / 'licences') for name in names]

        rows = write_distractors(folders(arguments.distractors), out)
        count = write_photographs([*folders([*arguments.packages, *arguments.folders]),
                                   *samples(arguments.samples)], out, rows)
        with open(out / 'copies.csv', 'w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    queries, table = [row[3] for row in rows], Path(arguments.out) / 'copies.csv'
    print(f'{count} photographs, {queries.count("True")} copies of them and a gallery of '
          f'{queries.count("False")} pictures, listed in {table}')
    return dict(files=[arguments.out, table], photographs=count, copies=queries.count('True'),
                gallery=queries.count('False'))


def source(package: str, unpacked: Path, licences: Path) -> Path:
    """The folder with the files of a Debian package, and what it says of its licence as a file.

    Raises:
        FileNotFoundError: it is neither installed nor to be had.
    """
    import shutil
    import subprocess

    root = unpacked / package
    installed = Path('/usr/share/doc', package, 'copyright')
    if installed.is_file():
        listed = subprocess.run(['dpkg', '-L', package], capture_output=True, text=True, check=True)
        for file in map(Path, listed.stdout.split('\n')):
            if file.is_file() and not file.is_symlink():
                target = root / file.relative_to('/')
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    else:
        root.mkdir()
        try:
            subprocess.run(['apt-get', 'download', package], cwd=root, check=True,
                           capture_output=True)
            subprocess.run(['dpkg', '-x', str(next(root.glob('*.deb'))), str(root)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise FileNotFoundError(
                f'The package {package!r} is neither installed nor can apt-get download it. Name '
                'others with --packages, or folders of photographs with --folders.') from error
    licences.mkdir(exist_ok=True)
    for file in root.glob('usr/share/doc/*/copyright'):
        shutil.copy(file, licences / f'{package}.txt')
    return root


def samples(names: Sequence[str]) -> list[Path]:
    """The folders of Python packages; says which are not installed."""
    from importlib.util import find_spec

    found = []
    for package, _, folder in (name.partition('/') for name in names):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            print(f'{package} is not installed: its pictures are left out')
        else:
            found.append(Path(spec.submodule_search_locations[0], folder))
    return found


def pictures(folders: Sequence[Path], smallest: int) -> Iterator[tuple[str, Any]]:
    """The pictures in some folders, those of a folder by size, in RGB with an edge of at most
    :data:`EDGE`; transparent ones on grey.

    Args:
        smallest: what the shorter edge must have.
    """
    from PIL import Image

    from ..image_files import UnreadableImageError, find_images, open_image

    for folder in folders:
        done = set()
        paths = find_images(folder)
        for path in sorted(paths, key=lambda path: (-Path(path).stat().st_size, path)):
            # KDE keeps the sizes and cuts of one wallpaper in NAME/contents
            motif = path.partition('/contents/')[0]
            if motif in done:
                continue
            done.add(motif)
            try:
                with open_image(path) as (image, _):
                    if min(image.size) < smallest:
                        continue
                    image.thumbnail((EDGE, EDGE))
                    ground = Image.new('RGBA', image.size, '#9a9a9a')
                    flat = Image.alpha_composite(ground, image.convert('RGBA'))
            except UnreadableImageError:
                continue
            name = Path(motif if '/contents/' in path else path).stem
            yield name, flat.convert('RGB')


def write_photographs(sources: Sequence[Path], out: Path, rows: list[list[str]]) -> int:
    """Write the photographs of unique motifs and their copies, and add them to the rows.

    Returns:
        How many photographs there are.

    Raises:
        FileNotFoundError: fewer than five.
    """
    from ..datasets.copies import ALTERATIONS, altered, unique_motifs
    from ..progress import progress_bar

    found = list(unique_motifs(pictures(sources, SMALLEST)))
    if len(found) < 5:
        raise FileNotFoundError(f'{len(found)} photographs of unique motifs with a shorter edge of '
                                f'{SMALLEST} pixels were found; five are the least.')
    for name in ('photographs', 'copies'):
        (out / name).mkdir()
    with progress_bar('Altering', len(found) * len(ALTERATIONS)) as bar:
        for number, (stem, photograph) in enumerate(found):
            label = f'{number:03d}-{stem}'
            kept = number % 5 != 4
            path = f'photographs/{label}.jpg'
            photograph.save(out / path, quality=92)
            if kept:
                rows.append([path, label, 'test', 'False', 'True', '', '', ''])
            other = found[(number + 7) % len(found)][1]
            for alteration in ALTERATIONS:
                copy = altered(photograph, alteration, label, other)
                path = f'copies/{label}--{alteration}.jpg'
                copy.image.save(out / path, quality=copy.quality)
                rows.append([path, label, 'test', 'True', 'False', alteration,
                             *(' '.join(map(str, box)) for box in (copy.seen, copy.place))])
                bar.update()
    return len(found)


def write_distractors(sources: Sequence[Path], out: Path) -> list[list[str]]:
    """Write the pictures that only fill the gallery; their rows."""
    (out / 'distractors').mkdir()
    rows = []
    for number, (stem, picture) in enumerate(pictures(sources, smallest=64)):
        label = f'distractor-{number:04d}-{stem}'
        path = f'distractors/{label}.jpg'
        picture.save(out / path, quality=92)
        rows.append([path, label, 'test', 'False', 'True', '', '', ''])
    return rows


if __name__ == '__main__':
    main()
