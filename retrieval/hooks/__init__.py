"""Hooks, loops and optimiser wrappers for MMEngine's Runner."""
from .adaptive_margins import AdaptiveMarginHook
from .autocast import AutocastOptimWrapper
from .check_head import CheckHeadHook
from .freezing import FreezeBatchNormHook, FreezeHook
from .loss_weights import LossWeightScheduleHook
from .prepare_prototype import PreparePrototypeHook
from .ranking_drawing import RankingDrawingHook, prototype_dataset, ranking_rows
from .record_predictions import RecordPredictionsHook
from .reproducible import (
    ReproducibleTrainingHook,
    ResumableIterTrainLoop,
    ResumableTrainLoop,
    seed_everything,
)

__all__ = ['AdaptiveMarginHook', 'AutocastOptimWrapper', 'CheckHeadHook', 'FreezeBatchNormHook',
           'FreezeHook', 'LossWeightScheduleHook', 'PreparePrototypeHook', 'RankingDrawingHook',
           'RecordPredictionsHook', 'ReproducibleTrainingHook', 'ResumableIterTrainLoop',
           'ResumableTrainLoop', 'prototype_dataset', 'ranking_rows', 'seed_everything']
