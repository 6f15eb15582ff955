"""Hooks, loops and optimiser wrappers for MMEngine's Runner."""
from .autocast import AutocastOptimWrapper
from .prepare_prototype import PreparePrototypeHook
from .reproducible import ReproducibleTrainingHook, ResumableTrainLoop, seed_everything

__all__ = ['AutocastOptimWrapper', 'PreparePrototypeHook', 'ReproducibleTrainingHook',
           'ResumableTrainLoop', 'seed_everything']
