"""Datasets of images, the transforms of their pipelines, and samplers."""
from __future__ import annotations

from .augmentation import MultiView, RandomAffine, RandomCrop, RandomResizedCrop, ResizeEdge, resize
from .base import RetrievalDataset, build_pipeline, plain_config
from .benchmark_dataset import BenchmarkDataset, Listing
from .cars196 import Cars196
from .csv_dataset import CSVDataset
from .cub200 import CUB200
from .glyphs import Glyphs
from .image_folder import ImageFolder, ImageList, find_images, split_classes
from .image_io import MissingImageError, UnreadableImageError, read_image
from .inaturalist2018 import INaturalist2018
from .inshop import InShop
from .loading import CropBox, LoadImage
from .packing import PackInputs
from .samplers import InfiniteSampler, MPerClassBatchSampler, MPerClassSampler
from .sampling_state import DrawIndex, SamplingState, seed_datasets, seeded
from .stanford_online_products import StanfordOnlineProducts
from .torchvision_bridge import ColorJitter, TorchvisionTransform
from .wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset, labels_of

__all__ = [
    'BenchmarkDataset', 'CSVDataset', 'CUB200', 'Cars196', 'ClassBalancedDataset',
    'ColorJitter', 'ConcatDataset', 'CropBox', 'DrawIndex', 'Glyphs', 'INaturalist2018',
    'ImageFolder', 'ImageList', 'InShop', 'InfiniteSampler', 'Listing', 'LoadImage',
    'MPerClassBatchSampler', 'MPerClassSampler', 'MissingImageError', 'MultiView', 'PackInputs',
    'RandomAffine', 'RandomCrop', 'RandomResizedCrop', 'RepeatDataset', 'ResizeEdge',
    'RetrievalDataset', 'SamplingState', 'StanfordOnlineProducts', 'TorchvisionTransform',
    'UnreadableImageError', 'build_pipeline', 'find_images', 'labels_of', 'plain_config',
    'read_image', 'resize', 'seed_datasets', 'seeded', 'split_classes',
]
