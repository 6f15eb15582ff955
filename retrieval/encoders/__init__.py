"""From images to embeddings: the data preprocessor, backbones, pooling and the image encoder.

timm and torchvision are imported when a backbone of theirs is built, not here.
"""
from __future__ import annotations

from .batch_augments import CutMix, Mixup, RandomBatchAugment
from .batch_norm_neck import BatchNormNeck
from .data_preprocessor import RetrievalDataPreprocessor
from .default_encoder import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    EfficientNetLite0,
)
from .image_encoder import ImageEncoder, Projection
from .pooling import (
    ClsTokenPooling,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
)
from .sequence import build_encoder
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .weights import WeightReport, load_weights, read_weights

__all__ = [
    'BatchNormNeck', 'ClsTokenPooling', 'CutMix', 'DEFAULT_ENCODER', 'DEFAULT_PIPELINE',
    'DEFAULT_PREPROCESSOR',
    'EfficientNetLite0', 'GeneralizedMeanPooling', 'GlobalAveragePooling', 'GlobalMaxPooling',
    'ImageEncoder', 'Mixup', 'Projection', 'RandomBatchAugment', 'RetrievalDataPreprocessor',
    'TimmBackbone', 'TorchvisionBackbone', 'WeightReport', 'build_encoder', 'load_weights',
    'read_weights',
]
