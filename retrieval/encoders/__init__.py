"""From images to embeddings: the data preprocessor, backbones, pooling and the image encoder.

timm and torchvision are imported when a backbone of theirs is built, not here.
"""
from __future__ import annotations

from .backbones.cached_features import CachedFeatures
from .backbones.default import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)
from .backbones.dual_encoder import DualEncoder
from .backbones.huggingface import HuggingFaceBackbone
from .backbones.timm import TimmBackbone
from .backbones.torchvision import TorchvisionBackbone
from .batch_augments import CutMix, Mixup, RandomBatchAugment, ResizeMix
from .build import build_encoder
from .classifier import (
    SUPPORTED_MODELS,
    Recognizer,
    get_module_at_path,
    get_path_to_ultimate_classifier,
    get_ultimate_classifier,
    set_module_at_path,
    split_backbone_classifier,
    update_classifier,
)
from .image_encoder import ImageEncoder, MultiScale, MultiScaleEncoder
from .normalisation import fill_in, known_normalisation
from .onnx_encoder import OnnxEncoder
from .pooling import (
    RMAC,
    AttentionPooling,
    ClsTokenPooling,
    GeMPlus,
    GeneralizedMeanPooling,
    GlobalAveragePooling,
    GlobalMaxPooling,
    PartsPooling,
    RegionalGeM,
    SPoC,
)
from .preprocessor import RetrievalDataPreprocessor
from .presets import PRESETS, WORD_PRESETS, preset
from .projection import BatchNormNeck, Projection, start_at_components
from .weights import Checkpoint, WeightReport, load_weights, read_weights
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
    'AttentionPooling', 'BatchNormNeck', 'CachedFeatures', 'Checkpoint', 'ClsTokenPooling',
    'CutMix', 'DEFAULT_ENCODER', 'DEFAULT_PIPELINE', 'DEFAULT_PREPROCESSOR', 'DualEncoder',
    'EfficientNetLite0', 'EfficientNetLite1', 'EfficientNetLite2', 'GeMPlus',
    'GeneralizedMeanPooling', 'GlobalAveragePooling', 'GlobalMaxPooling',
    'HuggingFaceBackbone', 'ImageEncoder', 'Mixup', 'MultiScale', 'MultiScaleEncoder',
    'OnnxEncoder', 'PRESETS', 'PartsPooling', 'Projection', 'RMAC', 'RandomBatchAugment',
    'Recognizer', 'RegionalGeM', 'ResizeMix', 'RetrievalDataPreprocessor', 'SPoC',
    'SUPPORTED_MODELS', 'TimmBackbone', 'TorchvisionBackbone',
    'WORD_PRESETS', 'WeightReport', 'Whitening', 'WhiteningFit', 'build_encoder',
    'fill_in', 'fit_learned_whitening', 'fit_pca_whitening', 'fit_whitening',
    'fit_zca_whitening', 'get_module_at_path', 'get_path_to_ultimate_classifier',
    'get_ultimate_classifier', 'known_normalisation', 'load_weights',
    'preset', 'principal_components', 'read_weights', 'set_module_at_path',
    'split_backbone_classifier', 'start_at_components', 'update_classifier',
]
