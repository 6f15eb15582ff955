"""The model that a command names: a config and its checkpoint, a bundle, or a preset."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..exported_encoder import ExportedEncoder, is_export
from .bundle import Bundle, is_bundle, is_hub_name


def named_model(config: str | None, checkpoint: str | None = None, encoder: str | None = None, *,
                options: dict[str, Any] | None = None, work_dir: str | None = None,
                data: str | None = None, trust: bool = False) -> tuple[Any, str | None]:
    """The config of a model and the path of its weights, however it is named.

    Args:
        config: a config's path, or a bundle.
        checkpoint: a checkpoint, or a bundle, whose weights are taken; none beside a bundle.
        encoder: a preset's name in the place of both (:func:`retrieval.encoders.preset`); a
            checkpoint beside it is a local file with the weights of its backbone. Or a bundle, or
            the folder of an exported encoder.
        options: what the command line changes in the config.
        work_dir: of the config.
        data: a folder of classes, for a bundle: its pictures become the gallery and the test set.
        trust: build whatever a bundle's config names.

    Returns:
        A config that runs, and the path of the checkpoint; None of a preset, whose config has the
        weights.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: they do not go together, or too little was given.

    Example:
        >>> config, _ = named_model(None, encoder='resnet50')
        >>> config.model.image_encoder.backbone.model_name
        'resnet50.a1_in1k'
    """
    from .config import load_config

    if encoder is not None:
        if config is not None:
            raise ValueError('--encoder stands in the place of a config: leave one of them out.')
        if is_export(encoder):
            made = ExportedEncoder(encoder).config
            return _completed(made, encoder, options, work_dir), None
        if not names_bundle(encoder):
            if data is not None:
                raise ValueError('--data is for a bundle: make one of the encoder first.')
            return _completed(_preset(encoder, checkpoint), encoder, options, work_dir), None
        config = encoder
    if config is None:
        raise ValueError('Which model? Give a config and its checkpoint, a bundle, or --encoder.')
    if is_bundle_name(config):
        if checkpoint is not None:
            raise ValueError(f'The bundle {config!r} has weights of its own: leave the checkpoint '
                             'out.')
        bundle = Bundle.open(config, trust)
        made = bundle.config
        if data is not None:
            _search_folder(made, data, bundle.pipeline)
        return _completed(made, config, options, work_dir), str(bundle.weights)
    if data is not None:
        raise ValueError('--data gives a bundle its pictures, and a config names its own: leave '
                         '--data out.')
    if checkpoint is None:
        raise ValueError(f'The config {config!r} wants the checkpoint of its weights; or give a '
                         'bundle in the place of both.')
    return load_config(config, options, work_dir), weights_of(checkpoint, trust)


def named_config(config: str, options: dict[str, Any] | None = None, trust: bool = False) -> Any:
    """The config of a path, or of a bundle, without its weights.

    Raises:
        FileNotFoundError, ValueError: it cannot be read.
    """
    from .config import load_config

    if is_bundle_name(config):
        return named_model(config, options=options, trust=trust)[0]
    return load_config(config, options)


def weights_of(checkpoint: str, trust: bool = False) -> str:
    """The path of a checkpoint, or of the weights in a bundle.

    Example:
        >>> weights_of('epoch_50.pth')
        'epoch_50.pth'
    """
    if not is_bundle_name(checkpoint):
        return checkpoint
    return str(Bundle.open(checkpoint, trust).weights)


def names_bundle(name: str) -> bool:
    """True for a bundle, and for a model on the hub whose config is that of one; others there are
    of timm or transformers.
    """
    if is_bundle(name) or not is_hub_name(name):
        return is_bundle(name)
    from ..encoders.backbones.huggingface import hub_config
    return not name.startswith('timm/') and 'model_type' not in hub_config(name)


def is_bundle_name(name: str) -> bool:
    """True for the path of a bundle, and for what may be one on the hub."""
    return is_bundle(name) or is_hub_name(name)


def _preset(name: str, checkpoint: str | None) -> Any:
    from ..encoders import preset

    encoder, preprocessor, pipeline = preset(name, checkpoint)
    model = dict(type='retrieval.ImageToImageRetriever', image_encoder=encoder,
                 data_preprocessor=preprocessor, topk=10)
    return dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline)))


def _search_folder(config: Any, folder: str, pipeline: list[dict[str, Any]]) -> None:
    loader = dict(batch_size=32, num_workers=2,
                  sampler=dict(type='DefaultSampler', shuffle=False),
                  dataset=dict(type='retrieval.ImageFolder', data_root=os.path.abspath(folder),
                               pipeline=pipeline))
    config.model.prototype = loader
    config.test_dataloader = loader
    config.test_evaluator = dict(type='retrieval.EmbeddingMetrics',
                                 metrics=['Recall@1', 'MAP@R', 'mAP'])
    config.test_cfg = {}


def with_options(config: Any, options: dict[str, Any] | None) -> Any:
    """A config that came as data, with what the command line changes in it.

    Raises:
        ValueError: a setting does nothing, or cannot be set.
    """
    from ..config.options import merge_options
    from ..config.own_names import check_option_names
    from ..config.reading import expand_home
    from ..config.settings import check_settings

    check_option_names(config, options or {})
    merge_options(config, options or {})
    check_settings(expand_home(config))
    return config


def _completed(config: Any, name: str, options: dict[str, Any] | None,
               work_dir: str | None) -> Any:
    """A config that came as data as one that runs."""
    from ..config.reading import PlainConfig
    from .config import complete

    plain = PlainConfig(dict(config), format_python_code=False)
    plain.work_dir = work_dir or str(Path('work_dirs') / Path(name).stem)
    return with_options(complete(plain), options)
