"""Datasets of images, the transforms of their pipelines, and samplers."""
from __future__ import annotations

from .augmentation import MultiView, RandomAffine, RandomCrop, RandomResizedCrop, ResizeEdge, resize
from .base import RetrievalDataset, build_pipeline, plain_config
from .benchmark_dataset import BenchmarkDataset, Listing
from .cached_features import LoadCachedFeatures
from .cars196 import Cars196
from .collating import image_collate
from .csv_dataset import CSVDataset
from .cub200 import CUB200
from .glyphs import Glyphs
from .google_landmarks_v2 import GoogleLandmarksV2
from .hierarchical_sampler import HierarchicalBatchSampler, HierarchicalSampler
from .image_folder import ImageFolder, ImageList, find_images, split_classes
from .image_io import MissingImageError, UnreadableImageError, read_image
from .inaturalist2018 import INaturalist2018
from .inshop import InShop
from .loading import CropBox, LoadImage, LoadImageFromFile
from .long_edge import LimitLongEdge
from .market1501 import Market1501
from .packing import PackInputs
from .plain_pickle import NotPlainError, load_plain_pickle
from .reidentification import ReidentificationDataset
from .revisited import RevisitedOxford, RevisitedParis
from .samplers import InfiniteSampler, MPerClassBatchSampler, MPerClassSampler
from .sampling_state import DrawIndex, SamplingState, seed_datasets, seeded, set_epoch_of_datasets
from .stanford_online_products import StanfordOnlineProducts
from .torchvision_bridge import ColorJitter, TorchvisionTransform
from .veri776 import VeRi776
from .wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset, labels_of, metadata_of

__all__ = [
    'BenchmarkDataset', 'CSVDataset', 'CUB200', 'Cars196', 'ClassBalancedDataset',
    'ColorJitter', 'ConcatDataset', 'CropBox', 'DrawIndex', 'Glyphs', 'GoogleLandmarksV2',
    'HierarchicalBatchSampler', 'HierarchicalSampler', 'INaturalist2018', 'ImageFolder',
    'ImageList', 'InShop', 'InfiniteSampler', 'LimitLongEdge', 'Listing', 'LoadCachedFeatures',
    'LoadImage', 'LoadImageFromFile', 'MPerClassBatchSampler', 'MPerClassSampler', 'Market1501',
    'MissingImageError', 'MultiView', 'NotPlainError', 'PackInputs', 'RandomAffine', 'RandomCrop',
    'RandomResizedCrop', 'ReidentificationDataset', 'RepeatDataset', 'ResizeEdge',
    'RetrievalDataset', 'RevisitedOxford', 'RevisitedParis', 'SamplingState',
    'StanfordOnlineProducts', 'TorchvisionTransform', 'UnreadableImageError', 'VeRi776',
    'build_pipeline', 'find_images', 'image_collate', 'labels_of', 'load_plain_pickle',
    'metadata_of', 'plain_config', 'read_image', 'resize', 'seed_datasets', 'seeded',
    'set_epoch_of_datasets', 'split_classes',
]
