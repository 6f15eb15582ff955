"""Marks that were made on the page of `serve`, for the commands that learn from them."""
from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .command_line import Outcome
from .folders import check_exists, config_dataset, open_folder
from .search import open_gallery


def load_pairs(path: str, gallery: Any, folder: str | None, dataset: Any,
               model: Callable[[], tuple[Any, Any]]) -> Any:
    """The marks of a file as pairs of embeddings.

    Args:
        path: of the marks.csv; what was sent and marked is beside it, in ``marked``.
        gallery: over which the marks were made.
        folder: that it was made from, or None.
        dataset: of its pictures, or None.
        model: gives the retriever and its pipeline; called where a query is to be encoded.

    Returns:
        See :class:`retrieval.server.marks.MarkedPairs`.
    """
    from ..server.batching import Encoder
    from ..server.marks import marked_pairs, read_marks
    from ..server.pictures import Pictures
    from ..server.snapshot import display_root, shown_name

    marks = read_marks(path)
    root = display_root(gallery) if folder is None else os.path.join(folder, '')
    ids = list(gallery.ids)
    encoders: list[Any] = []

    def encode(picture: Any) -> Any:
        if not encoders:
            encoders.append(Encoder(*model()))
        return encoders[0](picture)
    try:
        pairs = marked_pairs(marks, gallery.embeddings, ids,
                             {shown_name(name, root): row for row, name in enumerate(ids)},
                             Pictures(Path(path).parent, [dataset], root if folder else None),
                             encode)
    finally:
        for encoder in encoders:
            encoder.batcher.close()
    if pairs.gone:
        print(f'{pairs.gone} of {len(marks)} marks are left out: their pictures are not in '
              'this gallery, or gone')
    return pairs


def train_on_marks(arguments: argparse.Namespace) -> Outcome:
    """``train_on_embeddings … --marks``: train the projection that the page would, and put it
    behind the encoder, in a checkpoint.
    """
    import torch

    from ..encoders import ImageEncoder
    from ..encoders.whitening import Whitening, WhiteningFit
    from ..retrievers import build_retriever
    from ..runs.fitted_checkpoint import write_checkpoint
    from ..server.marks import held_out, train_projection

    for name in ('projection', 'hidden', 'epochs', 'lr'):
        if getattr(arguments, name) is not None:
            raise ValueError(f'--{name} is of the training on classes. With --marks, a correction '
                             'as wide as the embeddings is trained: leave it out.')
    inferencer, config, folder = _open(arguments)
    model, gallery = inferencer.model, inferencer.model.gallery
    if not isinstance(model.image_encoder, ImageEncoder):
        raise ValueError("What is trained on marks is put behind an ImageEncoder, and this "
                         f"model's is a {type(model.image_encoder).__name__}.")
    dataset = inferencer.gallery_dataset or config_dataset(config)
    pairs = load_pairs(arguments.marks, gallery, folder, dataset,
                       lambda: (model, inferencer.pipeline))
    pairs.check()
    found = held_out(pairs)
    made = train_projection(pairs.queries, pairs.results, pairs.right)
    right = int(pairs.right.sum())
    print(f'{right} right and {len(pairs.marks) - right} wrong marks of '
          f'{len({mark.query for mark in pairs.marks})} queries')
    for name, share in (('before', found.ordered_before), ('after', found.ordered_after)):
        print(f'{name:6}  ' + ('too few to hold some out' if share is None else
                               f'{share:.1%} of held-out right results above wrong ones'))
    encoder = config.model.image_encoder
    old, projection = model.image_encoder.whitening, made.T.numpy().astype('float32')
    if isinstance(old, Whitening) and bool(old.fitted):
        fit = WhiteningFit(old.mean.cpu().numpy(), projection @ old.projection.cpu().numpy())
    else:
        encoder['whitening'] = dict(in_features=gallery.dim, out_features=gallery.dim)
        fit = WhiteningFit(torch.zeros(gallery.dim).numpy(), projection)
    whole = build_retriever(copy.deepcopy(config), prototype=gallery, device='cpu')
    whole.load_state_dict({name: value for name, value in model.state_dict().items()
                           if '.whitening.' not in name}, strict=False)
    whole.image_encoder.whitening.set(fit)
    files = write_checkpoint(whole, config, arguments.out)
    if gallery.source.get('settings'):
        files.append(_write_gallery(gallery, made, whole, encoder, Path(arguments.out)))
    return dict(files=files, right=right, wrong=len(pairs.marks) - right,
                before=found.ordered_before, after=found.ordered_after)


def _write_gallery(gallery: Any, projection: Any, model: Any, encoder: Any, out: Path) -> Path:
    """Write a gallery as the new model would encode it; its path. The carried config says no place
    of the pictures that could be trusted, but what is behind the encoder takes its rows as they
    are.
    """
    import json

    from torch.nn.functional import normalize

    from ..gallery import Gallery

    settings = json.loads(gallery.source['settings'])
    if encoder.get('whitening') is not None:
        settings['model']['image_encoder']['whitening'] = dict(encoder['whitening'])
    path = out.with_suffix('.safetensors')
    Gallery(normalize(gallery.embeddings.float() @ projection), gallery.ids, gallery.labels,
            gallery.label_names, gallery.metadata,
            model.fingerprint().completed(gallery.fingerprint),
            dict(gallery.source, settings=json.dumps(settings), checkpoint=str(out.resolve()),
                 config_file=out.with_suffix('.config.py').name),
            gallery.skipped, gallery.similarity).save(path)
    print(f'{path} is the gallery, encoded so')
    return path


def _open(arguments: argparse.Namespace) -> tuple[Any, Any, str | None]:
    """The inferencer over what the marks are of, its config, and its folder where it is one."""
    from ..gallery import is_gallery
    from ..runs.config import load_config, searched_folder_config
    from ..search import ImageRetrievalInferencer

    path, changes = arguments.config, arguments.cfg_options
    check_exists(path)
    options = argparse.Namespace(
        gallery=path, config=None, checkpoint=arguments.checkpoint, encoder=None, trust=False,
        topk=100, no_cache=False, strict=False, ignore_fingerprint=False, calibration=None,
        cfg_options=changes)
    if os.path.isdir(path) and not is_gallery(path):
        folder = os.path.abspath(path)
        if arguments.checkpoint is not None:
            raise ValueError('A folder is trained on with the default pretrained encoder. For a '
                             'checkpoint, give its config, whose prototype is that folder.')
        return open_folder(folder, options), searched_folder_config(folder), folder
    if path.endswith('.py'):
        if arguments.checkpoint is None:
            raise ValueError('The marks are of a trained model: give its checkpoint too.')
        config = load_config(path, changes)
        return (ImageRetrievalInferencer(copy.deepcopy(config), checkpoint=arguments.checkpoint),
                config, None)
    return *open_gallery(options), None
