"""Writing a bundle: the encoder of a config and a checkpoint, and what belongs to it."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from .bundle import CALIBRATION, CARD, CONFIG, FORMAT, GALLERY, INDEX, VERSION, WEIGHTS, Bundle

# what a search needs of a model; heads and what else trains are left behind
_OF_THE_MODEL = ('image_encoder', 'data_preprocessor', 'similarity_fn', 'topk', 'index', 'rerank')
_METRICS = ('Recall@1', 'MAP@R', 'mAP')
_MOST_MEASURED = 50_000  # rows; exact ranking of all against all takes their square


def write_bundle(out: str | os.PathLike[str], config: Any,
                 checkpoint: str | os.PathLike[str] | None = None, *,
                 gallery: str | os.PathLike[str] | None = None,
                 calibration: str | os.PathLike[str] | None = None,
                 index: str | os.PathLike[str] | None = None,
                 metrics: dict[str, float] | None = None, measured_on: str | None = None,
                 trust: bool = False) -> Bundle:
    """Write a bundle, and read it back before it gets its name.

    What is written of the model is the encoder, with its whitening; heads, memories and whatever
    else only trains are left behind. See :func:`load` for an example.

    Args:
        out: a folder that is not there yet, or a file ``.zip``.
        config: a config with ``model`` and a test pipeline, or its path.
        checkpoint: the weights, or None for those that the config gives the model.
        gallery: a gallery that the model made.
        calibration: a calibration file for the model's similarities.
        index: a file of a FaissIndex over the gallery, as ``build_index`` writes it.
        metrics: measured results by name, for the model card. Without them those of a gallery
            with labels are measured: each row is searched among the others.
        measured_on: what the metrics were measured on, in words.
        trust: let the config name types that are not of this package. The bundle then opens with
            ``trust`` only.

    Returns:
        The bundle, open.

    Raises:
        FileExistsError: ``out`` is there.
        FileNotFoundError: a part is missing.
        ValueError: the config names what data may not have built, or a part does not belong to
            the model; the message says which.
    """
    from ..encoders import DualEncoder
    from ..files import write_json, write_text
    from ..retrievers import build_retriever
    from ..retrievers.build import as_config
    from .config import test_pipeline
    from .model_card import model_card

    out = Path(out)
    check_target(out)
    if index is not None and gallery is None:
        raise ValueError('An index is over a gallery: give the gallery too.')
    config = as_config(config)
    model = build_retriever(config, checkpoint, None)
    model.search_in(pipeline=test_pipeline(config))
    backbone = getattr(model.image_encoder, 'backbone', None)
    if isinstance(backbone, DualEncoder):  # which the config may leave to where its weights are
        config.model.image_encoder.backbone.architecture = backbone.architecture
    settings = _settings(config, trust)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as temporary:
        folder = Path(temporary, out.stem)
        folder.mkdir()
        _save_weights(model, folder / WEIGHTS)
        if gallery is not None:
            found = _save_gallery(gallery, settings, folder / GALLERY)
            if metrics is None:
                metrics, measured_on = _measured(found, model.similarity.name)
        for part, name in ((calibration, CALIBRATION), (index, INDEX)):
            if part is not None:
                _copy(Path(part), folder / name)
        manifest = dict(format=FORMAT, version=VERSION, retrieval=json.loads(settings),
                        fingerprint=model.fingerprint().as_dict(), metrics=metrics or {},
                        measured_on=measured_on, similarity=model.similarity.name,
                        versions=_versions())
        write_json(folder / CONFIG, manifest)
        read = Bundle.open(folder, trust)
        again = read.inferencer(device='cpu') if gallery is not None else None
        if again is None and calibration is not None:
            read.inferencer([_noise()], 'cpu', progress=False)  # is the calibration its own?
        manifest['embedding_size'] = _same_embeddings(
            model, read.retriever() if again is None else again.model, read.pipeline)
        write_json(folder / CONFIG, manifest)
        write_text(folder / CARD, model_card(out.stem, folder, manifest, model.image_encoder))
        if out.suffix == '.zip':
            _zip(folder, out)
        else:
            os.replace(folder, out)
    return Bundle.open(out, trust)


def check_target(out: str | os.PathLike[str]) -> None:
    """Raise FileExistsError where a bundle's name is taken by anything but an empty folder."""
    path = Path(out)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f'{str(path)!r} is there already: give another name, or remove it.')


def _settings(config: Any, trust: bool) -> str:
    """The part of a config that a search needs, as JSON.

    Raises:
        ValueError: JSON has not got it.
    """
    from mmengine.config import Config

    from ..retrievers.build import config_pipeline
    from .carried_config import carried

    whole = config.to_dict()
    model = {key: whole['model'][key] for key in _OF_THE_MODEL if key in whole['model']}
    if isinstance(model.get('index'), dict):
        model['index'] = {key: value for key, value in model['index'].items()
                          if key not in ('path', 'on_disk')}
    prototype = whole['model'].get('prototype')
    dataset = prototype.get('dataset') if isinstance(prototype, dict) else None
    if isinstance(dataset, dict) and str(dataset.get('type')).endswith('Glyphs'):
        model['prototype'] = prototype  # drawn pictures; others stand in files of this machine
    part = dict(model=dict(model, type='retrieval.ImageToImageRetriever'),
                test_dataloader=dict(dataset=dict(pipeline=config_pipeline(config))),
                default_scope=whole.get('default_scope') or 'retrieval')
    for key in ('data_preprocessor', *(('custom_imports',) if trust else ())):
        if whole.get(key) is not None:
            part[key] = whole[key]
    text = carried(Config(part))
    if text is None:
        raise ValueError('A bundle holds its config as JSON, and this one has values that JSON has '
                         'not, such as a function or a module: name registered types.')
    return text


def _save_weights(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    from ..files import write_atomically

    state = {f'image_encoder.{name}': value.detach().cpu().clone().contiguous()
             for name, value in model.image_encoder.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary, {'format': 'pt'}))


def _save_gallery(source: Any, settings: str, path: Path) -> Any:
    """Write a gallery that names the bundle's config and weights, and no path of this machine."""
    from ..gallery import Gallery
    from ..retrievers import write_gallery

    gallery = Gallery.load(source)
    gallery.verify()
    gallery.source.clear()
    gallery.source.update(settings=settings, checkpoint=WEIGHTS)
    write_gallery(gallery, path)
    return gallery


def _copy(source: Path, path: Path) -> None:
    if not source.is_file():
        raise FileNotFoundError(f'There is no file {str(source)!r} to put into the bundle.')
    if path.name == INDEX and any(source.parent.glob(f'{source.name}.*.lists')):
        raise ValueError(f'The index {str(source)!r} keeps its lists in a file of their own, and a '
                         'bundle holds an index that is one file: build it without --on-disk.')
    shutil.copyfile(source, path)


def _measured(gallery: Any, similarity: str) -> tuple[dict[str, float] | None, str | None]:
    """The metrics of a gallery with labels, in percent, each row searched among the others."""
    from ..evaluation import evaluate

    if gallery.labels is None or len(gallery) > _MOST_MEASURED:
        return None, None
    try:
        found = evaluate(gallery.embeddings, gallery.labels, metrics=_METRICS,
                         similarity=similarity)
    except ValueError:  # no class has two rows
        return None, None
    return ({name: float(found[name]) for name in _METRICS},
            f'the {len(gallery)} rows of its gallery, each searched among the others')


def _same_embeddings(model: Any, again: Any, pipeline: list[dict[str, Any]]) -> int:
    """The width of the embeddings, after both models have encoded one picture alike.

    Raises:
        ValueError: they differ: something in the config decides about the embeddings and is not
            carried.
    """
    import torch
    from mmengine.dataset import pseudo_collate

    from ..datasets import ImageList

    batch = pseudo_collate([ImageList([_noise()], pipeline=pipeline)[0]])
    with torch.no_grad():
        one, other = (part.embed(part.data_preprocessor(batch, False)['inputs']).cpu()
                      for part in (model, again))
    if one.shape != other.shape or not torch.allclose(one, other, atol=1e-4):
        raise ValueError('The model that was read back from the bundle encodes a picture to other '
                         'numbers: a setting of its config is not carried as data. Nothing was '
                         'written.')
    return one.shape[1]


def _noise() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (320, 280, 3), dtype=np.uint8)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

    found = dict(retrieval=__version__)
    for name in ('torch', 'timm', 'torchvision'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _zip(folder: Path, out: Path) -> None:
    """The files of a folder as an archive, not compressed: weights hardly shrink."""
    from ..files import write_atomically

    def write(name: str) -> None:
        with zipfile.ZipFile(name, 'w') as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)

    write_atomically(out, write)
