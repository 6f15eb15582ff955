"""The sets of a config as features: extracted once, kept in files, and a config over them."""
from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..retrievers.extraction import (
    cache_file,
    each_image_once,
    extraction_loader,
    with_pipeline,
)
from .config import test_pipeline, type_name

_KEPT_HOOKS = ('PreparePrototypeHook', 'PrepareProtoBeforeValLoopHook', 'ReproducibleTrainingHook',
               'CheckRunHook', 'StopOnNonFiniteHook')


class FeatureSets:
    """The sets of a config as features.

    Args:
        model: the retriever whose encoder extracts them.
        config: the config over images.
        folder: where they are kept.
        anew: extract them, even if they are there.

    Attributes:
        training: the features of the training set, a gallery.
        config: the config over features instead of images. Validation is by the config's
            validation set, or by its test set where it has none.
    """

    def __init__(self, model: Any, config: Any, folder: str | os.PathLike[str],
                 anew: bool = False) -> None:
        from ..evaluation.needed_columns import check_columns

        for kind in ('val', 'test'):
            check_columns(config.get(f'{kind}_evaluator'), config.get(f'{kind}_dataloader'),
                          config.model.get('prototype'))
        self._model, self._folder, self._anew = model, folder, anew
        self._files: dict[str, Path] = {}
        self._written: list[Path] = []
        self.training, file = self._extract(config.train_dataloader, test_pipeline(config))
        self.config = copy.deepcopy(config)
        self.config.train_dataloader = self._loader(config.train_dataloader, file)
        self._set_evaluation(config)
        self._set_model(config.model)
        self._leave_out()

    def _extract(self, loader: Mapping[str, Any],
                 pipeline: Sequence[Any] | None = None) -> tuple[Any, Path]:
        gallery, file = extract(self._model, extraction_loader(loader, pipeline), self._folder,
                                'pooling', self._anew, self._written)
        self._written.append(file)
        return gallery, file

    def _loader(self, loader: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
        """A dataloader's config that gives features; each set is extracted once."""
        from ..gallery import hash_settings

        if file is None:
            key = hash_settings(each_image_once(loader['dataset']))
            if key not in self._files:
                self._files[key] = self._extract(loader)[1]
            file = self._files[key]
        pipeline = [dict(type='retrieval.LoadCachedFeatures', file=str(file)),
                    dict(type='retrieval.PackInputs')]
        changed = dict(loader, dataset=with_pipeline(loader['dataset'], pipeline), num_workers=0)
        changed.pop('persistent_workers', None)
        changed.pop('prefetch_factor', None)
        return changed

    def _set_evaluation(self, config: Any) -> None:
        from ..retrievers import loader_pipeline, warn_of_pipelines

        kind = 'val' if config.get('val_dataloader') and config.get('val_evaluator') else 'test'
        loader, evaluator = (config.get(f'{kind}_{what}') for what in ('dataloader', 'evaluator'))
        changed = self.config
        if loader and evaluator:
            warn_of_pipelines(loader_pipeline(loader), loader_pipeline(config.model.prototype),
                              f'{kind}_dataloader')
            changed.val_dataloader, changed.val_evaluator = self._loader(loader), evaluator
            changed.val_cfg = dict()
        else:
            changed.val_dataloader = changed.val_evaluator = changed.val_cfg = None
        changed.test_dataloader = changed.test_evaluator = changed.test_cfg = None

    def _set_model(self, given: Any) -> None:
        """A model of what stands behind the pooling, over the features of the prototype."""
        model, encoder = self.config.model, given.image_encoder
        model.prototype = self._loader(given.prototype)
        model.image_encoder = dict(
            type='retrieval.ImageEncoder', pooling=None, normalize=encoder.get('normalize', True),
            backbone=dict(type='retrieval.CachedFeatures', num_features=self.training.dim),
            projection=encoder.get('projection'), whitening=encoder.get('whitening'))
        model.train_cfg = model.pretrained = None
        pixels = given.get('data_preprocessor') or self.config.get('data_preprocessor') or {}
        labels = {name: pixels[name] for name in ('to_onehot', 'num_classes') if name in pixels}
        model.data_preprocessor = dict(type='retrieval.RetrievalDataPreprocessor', **labels)
        self.config.data_preprocessor = None

    def _leave_out(self) -> None:
        """Without checkpoints, and without hooks that are about images or weights."""
        config = self.config
        config.load_from, config.resume, config.log_level = None, False, 'WARNING'
        config.default_hooks = dict(config.get('default_hooks') or {}, checkpoint=None)
        config.custom_hooks = [hook for hook in config.get('custom_hooks') or []
                               if type_name(hook) in _KEPT_HOOKS]


def extract(model: Any, loader: dict[str, Any], folder: str | os.PathLike[str], part: str,
            anew: bool, beside: Sequence[Path] = ()) -> tuple[Any, Path]:
    """The features of a dataset as a gallery, and their file; says what was done."""
    import time

    from ..retrievers import cache_features

    path, began = cache_file(folder, loader, part), time.monotonic()
    gallery, made = cache_features(model, loader, path, part, anew, beside)
    how = f'extracted in {time.monotonic() - began:.1f} s' if made else 'as they were before'
    print(f'{len(gallery)} x {gallery.dim} features in {path}, {how}')
    for image, reason in gallery.skipped.items():
        print(f'skipped {image}: {reason}')
    return gallery, path
