"""Features of a data set that are extracted once, and kept in a gallery file."""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ..encoders import ImageEncoder
from ..gallery import Fingerprint, FingerprintError, Gallery
from .encoded_file import dump_in_parts, identities
from .image_to_image import ImageToImageRetriever
from .prototype import build_loader


def cache_features(model: Any, dataloader: Mapping[str, Any], path: str | os.PathLike,
                   part: str = 'pooling', anew: bool = False) -> tuple[Gallery, bool]:
    """The features of a data set, from a file as long as that fits, else extracted and written.

    The file fits while encoder (up to ``part``), preprocessing, pipeline and list of images are
    the same, and no image's file is newer. An extraction that was killed goes on, see
    :func:`dump_in_parts`; the file is written whole or not at all, and mapped when it is read.

    Args:
        model: a retriever with an :class:`ImageEncoder`; its weights stay as they are.
        dataloader: the config of a dataloader; every image is encoded once, in order.
        path: where the features are kept, ``.safetensors``.
        part: ``'pooling'`` or ``'projection'``, see :meth:`ImageEncoder.up_to`.
        anew: extract, whatever is there.

    Returns:
        The features, ids and labels as a gallery, and whether they were extracted now.

    Raises:
        TypeError: the encoder is another one.
        ValueError: there is no image, or a feature is not finite.
    """
    encoder = model.image_encoder
    if not isinstance(encoder, ImageEncoder):
        raise TypeError('Features are cached of an ImageEncoder, which says where backbone and '
                        f'pooling end; the model has {type(encoder).__name__}.')
    loader = build_loader(dataloader)
    shortened = ImageToImageRetriever(encoder.up_to(part), loader, similarity_fn='inner_product',
                                      data_preprocessor=model.data_preprocessor)
    if not anew:
        kept = _kept(path, shortened.fingerprint(loader.dataset), loader.dataset)
        if kept is not None:
            return kept, False
    try:
        dump_in_parts(shortened, path, resume=not anew)
    except FingerprintError:  # parts that another model left
        dump_in_parts(shortened, path, resume=False)
    return Gallery.load(path), True


def _kept(path: str | os.PathLike, fingerprint: Fingerprint, dataset: Any) -> Gallery | None:
    """The features in the file, None where it is missing or does not fit."""
    if not Path(path).is_file():
        return None
    try:
        gallery = Gallery.load(path)
        gallery.verify()
    except (ValueError, OSError) as error:
        print_log(f'The features are extracted again: {error}', 'current')
        return None
    names = identities(dataset)
    skipped = gallery.skipped
    if (gallery.fingerprint != fingerprint or fingerprint.pipeline is None
            or list(gallery.ids) != [name for name in names if name not in skipped]
            or _newer_image(dataset, os.stat(path).st_mtime)):
        return None
    return gallery


def _newer_image(dataset: Any, written: float) -> bool:
    """Whether an image's file changed after a moment, or is not there any more."""
    if not callable(getattr(dataset, 'get_data_info', None)):
        return False
    for row in range(len(dataset)):
        path = dataset.get_data_info(row).get('img_path')
        if path is None:
            continue
        try:
            if os.stat(path).st_mtime > written:
                return True
        except OSError:
            return True
    return False
