"""Hooks, loops and optimiser wrappers for MMEngine's Runner."""
from __future__ import annotations

from .autocast import AutocastOptimWrapper
from .check_run import CheckRunHook
from .finite import StopOnNonFiniteHook
from .freeze import FreezeBatchNormHook, FreezeHook
from .layer_rates import LayerRatesConstructor
from .losses import AdaptiveMarginHook, CheckHeadHook, LossWeightScheduleHook
from .prepare_prototype import PreparePrototypeHook
from .reproducible import (
    ReproducibleTrainingHook,
    ResumableIterTrainLoop,
    ResumableTrainLoop,
    seed_everything,
)
from .results import RankingDrawingHook, RecordPredictionsHook, prototype_dataset, ranking_rows
from .schedules import share_of_run
from .start import AveragedWeightsHook, CompareWithStartHook, StartAtComponentsHook, compared

__all__ = [
    'AdaptiveMarginHook', 'AutocastOptimWrapper', 'AveragedWeightsHook', 'CheckHeadHook',
    'CheckRunHook', 'CompareWithStartHook', 'FreezeBatchNormHook', 'FreezeHook',
    'LayerRatesConstructor', 'LossWeightScheduleHook', 'PreparePrototypeHook',
    'RankingDrawingHook', 'RecordPredictionsHook', 'ReproducibleTrainingHook',
    'ResumableIterTrainLoop', 'ResumableTrainLoop', 'StartAtComponentsHook',
    'StopOnNonFiniteHook', 'compared', 'prototype_dataset', 'ranking_rows', 'seed_everything',
    'share_of_run',
]
