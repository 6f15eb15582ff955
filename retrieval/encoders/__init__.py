"""From images to embeddings: the data preprocessor, backbones, pooling and the image encoder.

timm and torchvision are imported when a backbone of theirs is built, not here.
"""
from __future__ import annotations

from .attention_pooling import AttentionPooling
from .batch_augments import CutMix, Mixup, RandomBatchAugment
from .batch_norm_neck import BatchNormNeck
from .cached_features import CachedFeatures
from .data_preprocessor import RetrievalDataPreprocessor
from .default_encoder import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    EfficientNetLite0,
)
from .huggingface_backbone import HuggingFaceBackbone
from .image_encoder import ImageEncoder
from .multi_scale import MultiScale, MultiScaleEncoder
from .pooling import (
    ClsTokenPooling,
    GeMPlus,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
    SPoC,
)
from .projection import Projection
from .recognizer import SUPPORTED_MODELS, Recognizer
from .regional_pooling import RMAC, RegionalGeM
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
from .whitening import (
    Whitening,
    WhiteningFit,
    fit_learned_whitening,
    fit_pca_whitening,
    fit_whitening,
    fit_zca_whitening,
    principal_components,
)

__all__ = [
    'AttentionPooling', 'BatchNormNeck', 'CachedFeatures', 'ClsTokenPooling', 'CutMix',
    'DEFAULT_ENCODER', 'DEFAULT_PIPELINE', 'DEFAULT_PREPROCESSOR', 'EfficientNetLite0',
    'GeMPlus', 'GeneralizedMeanPooling', 'GlobalAveragePooling', 'GlobalMaxPooling',
    'HuggingFaceBackbone', 'ImageEncoder', 'Mixup', 'MultiScale', 'MultiScaleEncoder',
    'Projection', 'RMAC', 'RandomBatchAugment', 'Recognizer', 'RegionalGeM',
    'RetrievalDataPreprocessor', 'SPoC', 'SUPPORTED_MODELS', 'TimmBackbone',
    'TorchvisionBackbone', 'WeightReport', 'Whitening', 'WhiteningFit', 'build_encoder',
    'fit_learned_whitening', 'fit_pca_whitening', 'fit_whitening', 'fit_zca_whitening',
    'get_module_at_path', 'get_path_to_ultimate_classifier', 'get_ultimate_classifier',
    'load_weights', 'principal_components', 'read_weights', 'set_module_at_path',
    'split_backbone_classifier', 'update_classifier',
]
