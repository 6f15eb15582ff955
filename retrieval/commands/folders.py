"""Folders of images as galleries, for the commands that take one."""
from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .command_line import add_config_options


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs to encode a folder."""
    parser.add_argument('--encoder', metavar='NAME', help='what encodes a folder, in the place of '
                        '--config and --checkpoint: the folder of an exported encoder')
    parser.add_argument('--config', help='the config (default: the one that a gallery carries as '
                        'data; for a folder, the default pretrained encoder)')
    parser.add_argument('--checkpoint', help='the checkpoint (default: as with --config)')
    parser.add_argument('--trust', action='store_true',
                        help='build whatever the config that a gallery carries names, and import '
                        'what it wants imported: for a gallery of your own, or of somebody whom '
                        'you trust to run code here')
    parser.add_argument('--no-cache', action='store_true',
                        help='encode a folder anew, and keep nothing')
    parser.add_argument('--strict', action='store_true',
                        help='stop at the first image that cannot be read (default: leave it out, '
                        'and list it at the end)')
    add_config_options(parser)


def open_folder(folder: str, arguments: argparse.Namespace, **options: Any) -> Any:
    """The inferencer over a folder of images.

    Args:
        folder: its absolute path.
        arguments: with the options of :func:`add_folder_options`.
        options: of the inferencer.

    Raises:
        ValueError: only one of config and checkpoint was given, or the folder holds no image.
        ImportError: the default encoder's weights are not installed.
    """
    from ..runs.config import load_config
    from ..search import ImageRetrievalInferencer, cache_beside

    config, name = None, 'default'
    changes = arguments.cfg_options
    if arguments.encoder is not None:
        config, name = export_config(arguments.encoder), cache_name(arguments.encoder)
    elif arguments.config is not None or arguments.checkpoint is not None:
        if arguments.config is None or arguments.checkpoint is None:
            raise ValueError('A folder is encoded with the model of --config and --checkpoint '
                             'together, or, with neither, with the default pretrained encoder.')
        config = load_config(arguments.config, changes)
        name = f'{Path(arguments.config).stem}-{Path(arguments.checkpoint).stem}'
    elif changes:
        raise ValueError('--cfg-options change a config: give --config and --checkpoint too.')
    cache = None if arguments.no_cache else cache_beside(folder, name)
    with _ends_in_order():
        inferencer = ImageRetrievalInferencer(
            config, folder, cache, num_workers=2, checkpoint=arguments.checkpoint,
            on_unreadable='raise' if arguments.strict else 'skip', **options)
    if inferencer.cache_report is not None:
        done = inferencer.cache_report
        print(f'{folder}: {done.kept} images as before, {done.new} new, {done.changed} changed, '
              f'{done.removed} gone, {len(done.skipped)} not readable; kept in {cache}')
    return inferencer


def export_config(folder: str) -> dict[str, Any]:
    """The config of a retriever with an exported encoder.

    Raises:
        FileNotFoundError, ValueError, ImportError: it is none, or cannot be run.
    """
    from ..exported_encoder import ExportedEncoder

    return ExportedEncoder(folder).config


def cache_name(encoder: str) -> str:
    """The name under which is kept what the encoder in a file or folder has encoded."""
    path = Path(encoder)
    return path.name.removesuffix(path.suffix) or 'encoder'


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Inside, SIGTERM ends the process as an exit does: what was encoded is kept first."""
    if threading.current_thread() is not threading.main_thread():  # only that one may
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def list_unreadable(*galleries: Any) -> None:
    """Print on the standard error which images of the galleries' folders could not be read."""
    skipped = {name: why for gallery in galleries if gallery for name, why in
               gallery.skipped.items()}
    if skipped:
        print(f'{len(skipped)} images could not be read and are left out '
              '(--strict stops at the first):', file=sys.stderr)
    for image, reason in skipped.items():
        print(f'  {reason}' if image in reason else f'  {image}: {reason}', file=sys.stderr)


def write_sheet(rows: list[list[tuple[str, str]]], datasets: list[Any], ids: Iterable[str],
                path: Path, columns: int, title: str) -> bool:
    """Draw rows of pictures, below each its name and a caption.

    Args:
        rows: of ids with captions, at the most ``columns`` of them; an empty id is a gap.
        datasets: where the pictures are looked for.
        ids: of the whole sets, from which the names are to differ.
        path: of the sheet. One that was there before is deleted where there is nothing to draw.
        columns: how many pictures stand in a row.
        title: above all.

    Returns:
        False where there is no picture of any, as of embeddings whose images are elsewhere.
    """
    from PIL import Image

    from ..visualization import Pictures, distinct_names, draw_image_grid

    pictures, blank = Pictures(datasets), Image.new('RGB', (8, 8), 'white')
    found = {name: pictures.of(name) for row in rows for name, _ in row if name}
    if all(picture is None for picture in found.values()):
        path.unlink(missing_ok=True)
        return False
    names = {'': '', **distinct_names(found, ids)}
    found[''] = blank
    images, captions = [], []
    for row in rows:
        gap = columns - len(row)
        images += [*(found[name] for name, _ in row), *[blank] * gap]
        captions += [*(f'{names[name]}\n{caption}'.strip() for name, caption in row),
                     *[''] * gap]
    draw_image_grid(images, captions, path, columns=columns, title=title)
    return True


def check_exists(path: str) -> None:
    """Raise FileNotFoundError where there is nothing at a path that was given as what to search."""
    if not os.path.exists(path):
        what = 'gallery' if Path(path).suffix else 'folder or gallery'
        raise FileNotFoundError(f'There is no {what} {path!r}: check the path.')


def open_vectors(path: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The gallery of a folder or a file, and the dataset of its pictures where it is known.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it cannot be read.
    """
    from ..gallery import Gallery, is_gallery

    check_exists(path)
    if Path(path).is_dir() and not is_gallery(path):
        inferencer = open_folder(os.path.abspath(path), arguments)
        return inferencer.model.gallery, inferencer.gallery_dataset
    gallery = Gallery.load(path)
    if arguments.config is None and not gallery.source.get('settings'):
        return gallery, None  # ids that are paths are drawn all the same
    try:
        return gallery, config_dataset(gallery_config(gallery, path, arguments))
    except ValueError:
        if arguments.config is not None or arguments.trust:
            raise
        return gallery, None


def gallery_config(gallery: Any, path: str, arguments: argparse.Namespace) -> Any:
    """The config of ``--config``, else the one that the gallery carries as data.

    A Python file that a gallery names is not run, since it may come from anywhere.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, or the gallery carries none from which data may build.
    """
    from ..config.options import merge_options
    from ..config.own_names import check_option_names
    from ..config.reading import expand_home
    from ..config.settings import check_settings
    from ..runs.carried_config import carried_config
    from ..runs.config import load_config

    if arguments.config is not None:
        return load_config(arguments.config, arguments.cfg_options)
    text = gallery.source.get('settings')
    if text is None:
        named = gallery.source.get('config_file')
        beside = f' It names {named!r}, a program: give that where you know it.' if named else ''
        raise ValueError(f'{path!r} does not say as data which config made it: give --config and '
                         f'--checkpoint.{beside}')
    config = carried_config(text, arguments.trust)
    options = arguments.cfg_options or {}
    check_option_names(config, options)
    merge_options(config, options)
    check_settings(expand_home(config))
    return config


def config_dataset(config: Any) -> Any:
    """The dataset that a config's prototype is encoded from; None where it has none, or where its
    files are elsewhere by now.
    """
    from ..registry import DATASETS

    prototype = config.model.get('prototype')
    if not isinstance(prototype, dict):
        return None
    try:
        return DATASETS.build(prototype['dataset'])
    except OSError:
        return None


def named_checkpoint(source: dict[str, Any], folder: Path) -> str | None:
    """The checkpoint that a gallery names, as it is named or beside the gallery."""
    named = source.get('checkpoint')
    if not named:
        return None
    for path in (folder / named, Path(named), folder / Path(named).name):
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f'The gallery names {named!r}, which is not there any more. Give it '
                            'with --checkpoint.')
