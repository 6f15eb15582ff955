"""Datasets of images, the transforms of their pipelines, and samplers."""
from __future__ import annotations

from ..image_files import MissingImageError, UnreadableImageError, find_images
from ..image_io import read_image
from .base import RetrievalDataset, build_pipeline
from .benchmarks.base import BenchmarkDataset, Listing, ReidentificationDataset
from .benchmarks.cars196 import Cars196
from .benchmarks.cub200 import CUB200
from .benchmarks.google_landmarks_v2 import GoogleLandmarksV2
from .benchmarks.inaturalist2018 import INaturalist2018
from .benchmarks.inshop import InShop
from .benchmarks.market1501 import Market1501
from .benchmarks.objects import Objects
from .benchmarks.revisited import RevisitedOxford, RevisitedParis
from .benchmarks.stanford_online_products import StanfordOnlineProducts
from .benchmarks.veri776 import VeRi776
from .collate import image_collate
from .csv_dataset import CSVDataset
from .glyphs.dataset import Glyphs
from .image_folder import ImageFolder, ImageList, split_classes
from .randomness import DrawIndex, seed_datasets, set_epoch_of_datasets
from .samplers import (
    HierarchicalBatchSampler,
    HierarchicalSampler,
    InfiniteSampler,
    MPerClassBatchSampler,
    MPerClassSampler,
)
from .transforms.geometry import (
    LimitLongEdge,
    MultiView,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    ResizeEdge,
    resize,
)
from .transforms.load import CropBox, LoadCachedFeatures, LoadImage, LoadImageFromFile, PackInputs
from .transforms.torchvision import ColorJitter
from .wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset, labels_of, metadata_of

__all__ = [
    'BenchmarkDataset', 'CSVDataset', 'CUB200', 'Cars196', 'ClassBalancedDataset', 'ColorJitter',
    'ConcatDataset', 'CropBox', 'DrawIndex', 'Glyphs', 'GoogleLandmarksV2',
    'HierarchicalBatchSampler', 'HierarchicalSampler', 'INaturalist2018', 'ImageFolder',
    'ImageList', 'InShop', 'InfiniteSampler', 'LimitLongEdge', 'Listing', 'LoadCachedFeatures',
    'LoadImage', 'LoadImageFromFile', 'MPerClassBatchSampler', 'MPerClassSampler', 'Market1501',
    'MissingImageError', 'MultiView', 'Objects', 'PackInputs', 'RandomAffine', 'RandomCrop',
    'RandomResizedCrop', 'ReidentificationDataset', 'RepeatDataset', 'ResizeEdge',
    'RetrievalDataset', 'RevisitedOxford', 'RevisitedParis', 'StanfordOnlineProducts',
    'UnreadableImageError', 'VeRi776', 'build_pipeline', 'find_images', 'image_collate',
    'labels_of', 'metadata_of', 'read_image', 'resize', 'seed_datasets', 'set_epoch_of_datasets',
    'split_classes',
]
