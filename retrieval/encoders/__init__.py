"""From images to embeddings: the data preprocessor, backbones, pooling and the image encoder.

timm, torchvision and transformers are imported when a backbone of theirs is built, not here.
"""
from __future__ import annotations

from .batch_augments import CutMix, Mixup, RandomBatchAugment
from .data_preprocessor import RetrievalDataPreprocessor
from .default_encoder import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    EfficientNetLite0,
)
from .huggingface_backbone import HuggingFaceBackbone
from .image_encoder import ImageEncoder, Projection
from .pooling import (
    ClsTokenPooling,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
)
from .recognizer import SUPPORTED_MODELS, Recognizer
from .sequence import build_encoder
from .surgery import (
    get_module_at_path,
    get_path_to_ultimate_classifier,
    get_ultimate_classifier,
    set_module_at_path,
    split_backbone_classifier,
    update_classifier,
)
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .weight_files import read_weights
from .weights import WeightReport, load_weights

__all__ = [
    'ClsTokenPooling', 'CutMix', 'DEFAULT_ENCODER', 'DEFAULT_PIPELINE', 'DEFAULT_PREPROCESSOR',
    'EfficientNetLite0', 'GeneralizedMeanPooling', 'GlobalAveragePooling', 'GlobalMaxPooling',
    'HuggingFaceBackbone', 'ImageEncoder', 'Mixup', 'Projection', 'RandomBatchAugment',
    'Recognizer', 'RetrievalDataPreprocessor', 'SUPPORTED_MODELS', 'TimmBackbone',
    'TorchvisionBackbone', 'WeightReport', 'build_encoder', 'get_module_at_path',
    'get_path_to_ultimate_classifier', 'get_ultimate_classifier', 'load_weights', 'read_weights',
    'set_module_at_path', 'split_backbone_classifier', 'update_classifier',
]
