"""The model that a command names: a config and its checkpoint, a bundle, or a preset."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .bundle import Bundle, is_bundle, is_hub_name


def named_model(config: str | None, checkpoint: str | None = None, encoder: str | None = None, *,
                options: dict[str, Any] | None = None, work_dir: str | None = None,
                data: str | None = None, trust: bool = False) -> tuple[Any, str | None]:
    """A config that runs, and the checkpoint of its weights.

    Args:
        config: a config's path, or a bundle.
        checkpoint: a checkpoint, or a bundle, whose weights are taken; none beside a bundle.
        encoder: the name of a preset in the place of both (:func:`retrieval.encoders.preset`); a
            checkpoint beside it is a local file with the weights of its backbone. Or a bundle.
        options: what the command line changes in the config.
        work_dir: of the config.
        data: a folder of classes, for a bundle or a preset: its pictures become the gallery, the
            test set and the training set.
        trust: build whatever a bundle's config names.

    Returns:
        The config and the path of the checkpoint; None with a preset, whose config has the
        weights.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: they do not go together, or too little was given.
    """
    from .config import load_config

    if encoder is not None:
        if config is not None:
            raise ValueError('--encoder stands in the place of a config: leave one of them out.')
        if not _is_bundle_name(encoder):
            return _preset(encoder, checkpoint, options, work_dir, data), None
        config = encoder
    if config is None:
        raise ValueError('Which model? Give a config and its checkpoint, a bundle, or --encoder.')
    if _is_bundle_name(config):
        if checkpoint is not None:
            raise ValueError(f'The bundle {config!r} has weights of its own: leave the checkpoint '
                             'out.')
        bundle = Bundle.open(config, trust)
        return _completed(bundle.config, config, options, work_dir, data), str(bundle.weights)
    if data is not None:
        raise ValueError('--data gives a bundle its pictures, and a config names its own: leave '
                         '--data out.')
    if checkpoint is None:
        raise ValueError(f'The config {config!r} wants the checkpoint of its weights (or give a '
                         'bundle in the place of both).')
    return load_config(config, options, work_dir), weights_of(checkpoint, trust)


def weights_of(checkpoint: str, trust: bool = False) -> str:
    """The path of a checkpoint, or of the weights in a bundle."""
    if not _is_bundle_name(checkpoint):
        return checkpoint
    return str(Bundle.open(checkpoint, trust).weights)


def _is_bundle_name(name: str) -> bool:
    return is_bundle(name) or is_hub_name(name)


def _preset(name: str, checkpoint: str | None, options: dict[str, Any] | None,
            work_dir: str | None, data: str | None) -> Any:
    from mmengine.config import Config

    from ..encoders.presets import preset

    encoder, preprocessor, pipeline = preset(name, checkpoint)
    model = dict(type='retrieval.ImageToImageRetriever', image_encoder=encoder,
                 data_preprocessor=preprocessor, topk=10)
    made = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return _completed(made, name, options, work_dir, data)


def _completed(config: Any, name: str, options: dict[str, Any] | None, work_dir: str | None,
               data: str | None) -> Any:
    """A config that came as data, with what the command line changes and what every run needs."""
    from ..config.options import merge_options
    from ..config.own_names import check_option_names
    from ..config.reading import expand_home
    from ..config.settings import check_settings
    from .config import complete, test_pipeline

    if data is not None:
        loader = dict(
            batch_size=32, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='retrieval.ImageFolder', data_root=os.path.abspath(data),
                         pipeline=test_pipeline(config)))
        evaluator = dict(type='retrieval.EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'mAP'])
        config.model.prototype = loader
        config.merge_from_dict(dict(train_dataloader=loader, test_dataloader=loader,
                                    test_evaluator=evaluator, test_cfg={}))
    options = options or {}
    check_option_names(config, options)
    merge_options(config, options)
    config.work_dir = work_dir or str(Path('work_dirs') / Path(name).stem)
    complete(config)
    check_settings(expand_home(config))
    return config
