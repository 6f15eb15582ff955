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
from typing import Any, NamedTuple

from .command_line import add_config_options


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs to encode a folder."""
    parser.add_argument('--encoder', metavar='NAME', help='the encoder of a folder, in the place '
                        'of --config and --checkpoint: a bundle, an exported encoder, or a '
                        'pretrained one by its name, such as dinov2-small (--checkpoint is a local '
                        'file with its weights then)')
    parser.add_argument('--config', help='the config, or a bundle (default: the one that a gallery '
                        'carries as data; for a folder, the default pretrained encoder)')
    parser.add_argument('--checkpoint', help='the checkpoint (default: as with --config)')
    parser.add_argument('--trust', action='store_true',
                        help='build whatever the config that a gallery or bundle carries names, '
                        'and import what it wants imported: for one of your own, or of somebody '
                        'whom you trust to run code here')
    parser.add_argument('--no-cache', action='store_true',
                        help='encode a folder anew, and keep nothing')
    parser.add_argument('--strict', action='store_true',
                        help='stop at the first image that cannot be read (default: leave it out, '
                        'and list it at the end)')
    add_config_options(parser)


def add_parts_options(parser: argparse.ArgumentParser, rerank: bool = True) -> None:
    """Add what a command needs to search by the parts of pictures."""
    parser.add_argument('--parts', action='store_true',
                        help='encode a folder by several vectors a picture, of its whole and of '
                        'its parts, so that a crop finds the whole, and a picture what was pasted '
                        'into it')
    if rerank:
        parser.add_argument('--rerank', choices=['local'],
                            help='local: look for the query in the first hundred results by local '
                            'features; those that it is found in come first, with its box')


def cut_given(arguments: argparse.Namespace) -> tuple[str, float | None]:
    """The criterion of ``--cut`` and its target, for :func:`calibrate_without_labels`.

    Raises:
        ValueError: it is neither ``auto`` nor a share, or stands beside ``--calibration``.
    """
    if arguments.calibration is not None:
        raise ValueError('--cut and --calibration both say where to cut: give one of them.')
    if arguments.cut == 'auto':
        return 'expected', None
    try:
        share = float(arguments.cut)
    except ValueError:
        share = -1.
    if not 0 < share < 1:
        raise ValueError('--cut is auto, or a share between 0 and 1 such as 0.05; got '
                         f'{arguments.cut!r}.')
    return 'no_match', share


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
    from ..search import ImageRetrievalInferencer, cache_beside

    model = folder_encoder(arguments, folder)
    cache = None if arguments.no_cache else cache_beside(folder, model.name)
    if options.get('calibration') is None:
        options['calibration'] = model.calibration
    with _ends_in_order():
        inferencer = ImageRetrievalInferencer(
            model.config, folder, cache, num_workers=2, checkpoint=model.checkpoint,
            on_unreadable='raise' if arguments.strict else 'skip', **options)
    if inferencer.cache_report is not None:
        done = inferencer.cache_report
        print(f'{folder}: {done.kept} images as before, {done.new} new, {done.changed} changed, '
              f'{done.removed} gone, {len(done.skipped)} not readable; kept in {cache}')
    return inferencer


def cache_name(*given: str | None) -> str:
    """The name under which is kept what the encoder that is named so has encoded.

    Example:
        >>> cache_name('owner/model', None)
        'owner-model'
    """
    return '-'.join(Path(part).stem if os.path.exists(part) else part.replace('/', '-')
                    for part in given if part)


class FolderEncoder(NamedTuple):
    """The model that encodes a folder.

    Attributes:
        config: its config, None for the default encoder.
        checkpoint: its weights, where the config has not got them.
        calibration: of the bundle, where it is one that has one.
        name: under which what it encodes is kept.
    """

    config: Any = None
    checkpoint: str | None = None
    calibration: Path | None = None
    name: str = 'default'


def folder_encoder(arguments: argparse.Namespace, folder: str | None = None) -> FolderEncoder:
    """The model that the options name for a folder.

    Args:
        arguments: with the options of :func:`add_folder_options`.
        folder: beside whose encoded images local features are kept.

    Raises:
        FileNotFoundError, ValueError: the options name no model, or do not go together.
    """
    from ..encoders.presets import DEFAULT_NAME
    from ..runs.bundle import CALIBRATION, Bundle
    from ..runs.named_model import is_bundle_name, named_model, names_bundle

    given = [arguments.encoder, arguments.config, arguments.checkpoint]
    default = not any(given) or given == [DEFAULT_NAME, None, None]
    parts, rerank = (getattr(arguments, name, None) for name in ('parts', 'rerank'))
    if default and (parts or rerank):
        arguments.encoder = DEFAULT_NAME
    elif default:
        if arguments.cfg_options:
            raise ValueError('--cfg-options change a config: give --config and --checkpoint too.')
        return FolderEncoder()
    config, checkpoint = given[1:]
    if arguments.encoder is None and (config is None or checkpoint is None
                                      and not is_bundle_name(config)):
        raise ValueError('A folder is encoded with the model of --config and --checkpoint '
                         'together, of --encoder, or, with none of them, with the default '
                         'pretrained encoder.')
    bundle = arguments.encoder or config
    made, weights = named_model(config, checkpoint, arguments.encoder,
                                options=arguments.cfg_options, trust=arguments.trust)
    calibration = Bundle.open(bundle).file(CALIBRATION) if names_bundle(bundle) else None
    name = 'default' if default else cache_name(*given)
    if parts:
        with_parts(made, whole_pictures=default)
        name, calibration = f'{name}-parts', None
    if rerank:
        with_local_rerank(made, None if getattr(arguments, 'no_cache', False) else folder)
    return FolderEncoder(made, weights, calibration, name)


def with_parts(config: Any, whole_pictures: bool = False) -> None:
    """Change a config so that it searches by the parts of pictures.

    Args:
        config: with a retriever.
        whole_pictures: pictures come whole and as large as the default encoder sees them best, in
            the place of what its pipeline cuts out of their middle.

    Raises:
        ValueError: the config's encoder pools no feature map.
    """
    encoder = config.model.image_encoder
    pooling = encoder.get('pooling', dict(type='retrieval.GlobalAveragePooling')) \
        if hasattr(encoder, 'get') else None
    if pooling is None:
        raise ValueError('--parts wants an ImageEncoder that pools a feature map itself: this '
                         'encoder gives vectors that are pooled already. Leave --parts out, or '
                         "give a config with pooling=dict(type='PartsPooling', …).")
    encoder.pooling = dict(type='retrieval.PartsPooling', pooling=pooling)
    config.model.index = dict(type='retrieval.PartsIndex')
    if whole_pictures:
        config.test_dataloader.dataset.pipeline = [
            dict(type='retrieval.LoadImage'),
            dict(type='retrieval.ResizeEdge', scale=256, edge='short'),
            dict(type='retrieval.PackInputs')]


def with_local_rerank(config: Any, folder: str | None = None) -> None:
    """Change a config so that its results are geometrically checked last.

    Args:
        config: with a retriever.
        folder: of images, beside which local features are kept.
    """
    from ..encoded_folder import cache_beside

    kept = {} if folder is None else dict(
        kept=str(cache_beside(folder, 'local-features').with_suffix('.sqlite')))
    config.model.rerank = [*(config.model.get('rerank') or ()),
                           dict(type='retrieval.LocalRerank', **kept)]


def is_folder(path: str) -> bool:
    """True for a folder of images, and for none that is a gallery store or a bundle."""
    from ..gallery import is_gallery
    from ..runs.bundle import is_bundle

    return Path(path).is_dir() and not is_gallery(path) and not is_bundle(path)


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
    from ..gallery import Gallery

    check_exists(path)
    if is_folder(path):
        inferencer = open_folder(os.path.abspath(path), arguments)
        return inferencer.model.gallery, inferencer.gallery_dataset
    gallery = Gallery.load(gallery_file(path))
    if arguments.config is None and not gallery.source.get('settings'):
        return gallery, None  # ids that are paths are drawn all the same
    try:
        return gallery, config_dataset(gallery_config(gallery, path, arguments))
    except ValueError:
        if arguments.config is not None or arguments.trust:
            raise
        return gallery, None


def gallery_file(path: str) -> str:
    """The path of a gallery, which may be in a bundle.

    Raises:
        ValueError: the bundle has none.
    """
    from ..runs.bundle import GALLERY, Bundle, is_bundle

    if not is_bundle(path):
        return path
    found = Bundle.open(path).file(GALLERY)
    if found is None:
        raise ValueError(f'The bundle {path!r} holds no gallery: give a folder of images and '
                         f'--encoder {path}, or write the bundle with --gallery.')
    return str(found)


def gallery_config(gallery: Any, path: str, arguments: argparse.Namespace) -> Any:
    """The config of ``--config``, else the one that the gallery carries as data.

    A Python file that a gallery names is not run, since it may come from anywhere.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, or the gallery carries none from which data may build.
    """
    from ..runs.carried_config import carried_config
    from ..runs.named_model import named_config, named_model, with_options

    if arguments.encoder is not None:
        return named_model(None, arguments.checkpoint, arguments.encoder,
                           options=arguments.cfg_options, trust=arguments.trust)[0]
    if arguments.config is not None:
        return named_config(arguments.config, arguments.cfg_options, arguments.trust)
    text = gallery.source.get('settings')
    if text is None:
        named = gallery.source.get('config_file')
        beside = f' It names {named!r}, a program: give that where you know it.' if named else ''
        raise ValueError(f'{path!r} does not say as data which config made it: give --config and '
                         f'--checkpoint.{beside}')
    return with_options(carried_config(text, arguments.trust), arguments.cfg_options)


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


def gallery_checkpoint(gallery: Any, path: str, arguments: argparse.Namespace) -> str | None:
    """The weights of the model that made a gallery: of the options, else those that it names, as
    they are named or beside the gallery; None of a preset, which has its own.

    Raises:
        FileNotFoundError: what it names is not there.
        ValueError: it names none.
    """
    from ..runs.named_model import is_bundle_name, named_model, weights_of

    if arguments.encoder is not None or arguments.config and is_bundle_name(arguments.config):
        return named_model(arguments.config, arguments.checkpoint, arguments.encoder,
                           trust=arguments.trust)[1]
    if arguments.checkpoint is not None:
        return weights_of(arguments.checkpoint, arguments.trust)
    folder = Path(path).resolve().parent  # of what a link leads to
    named = gallery.source.get('checkpoint')
    if not named:
        raise ValueError(f'{path!r} does not say which checkpoint made it: give --checkpoint.')
    for file in (folder / named, Path(named), folder / Path(named).name):
        if file.is_file():
            return str(file)
    raise FileNotFoundError(f'The gallery names {named!r}, which is not there any more. Give it '
                            'with --checkpoint.')
