"""Datasets of images, the transforms of their pipelines, and samplers."""
from __future__ import annotations

from .augmentation import MultiView, RandomAffine, RandomCrop, RandomResizedCrop, ResizeEdge, resize
from .base import RetrievalDataset, build_pipeline, plain_config
from .collating import image_collate
from .csv_dataset import CSVDataset
from .glyphs import Glyphs
from .hierarchical_sampler import HierarchicalBatchSampler, HierarchicalSampler
from .image_folder import ImageFolder, ImageList, find_images, split_classes
from .image_io import MissingImageError, UnreadableImageError, read_image
from .loading import CropBox, LoadImage, LoadImageFromFile
from .packing import PackInputs
from .samplers import InfiniteSampler, MPerClassBatchSampler, MPerClassSampler
from .sampling_state import (
    DrawIndex,
    SamplingState,
    seed_datasets,
    seeded,
    set_epoch_of_datasets,
)
from .torchvision_bridge import ColorJitter, TorchvisionTransform
from .wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset, labels_of, metadata_of

__all__ = [
    'CSVDataset', 'ClassBalancedDataset', 'ColorJitter', 'ConcatDataset', 'CropBox',
    'DrawIndex', 'Glyphs', 'HierarchicalBatchSampler', 'HierarchicalSampler', 'ImageFolder',
    'ImageList', 'InfiniteSampler', 'LoadImage', 'LoadImageFromFile', 'MPerClassBatchSampler',
    'MPerClassSampler', 'MissingImageError', 'MultiView', 'PackInputs', 'RandomAffine',
    'RandomCrop', 'RandomResizedCrop', 'RepeatDataset', 'ResizeEdge', 'RetrievalDataset',
    'SamplingState', 'TorchvisionTransform', 'UnreadableImageError', 'build_pipeline',
    'find_images', 'image_collate', 'labels_of', 'metadata_of', 'plain_config', 'read_image',
    'resize', 'seed_datasets', 'seeded', 'set_epoch_of_datasets', 'split_classes',
]
