"""A torchvision classifier whose classes are a means to embeddings."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS, unknown_name
from .surgery import (
    get_path_to_ultimate_classifier,
    split_backbone_classifier,
    update_classifier,
)
from .torchvision_backbone import create_classifier
from .weight_files import KeyMapping
from .weights import load_checkpoint

#: The classifiers of torchvision that end in a linear layer: all but squeezenet.
SUPPORTED_MODELS = [
    'alexnet', 'convnext_base', 'convnext_large', 'convnext_small', 'convnext_tiny',
    'densenet121', 'densenet161', 'densenet169', 'densenet201', 'efficientnet_b0',
    'efficientnet_b1', 'efficientnet_b2', 'efficientnet_b3', 'efficientnet_b4',
    'efficientnet_b5', 'efficientnet_b6', 'efficientnet_b7', 'efficientnet_v2_l',
    'efficientnet_v2_m', 'efficientnet_v2_s', 'googlenet', 'inception_v3', 'maxvit_t',
    'mnasnet0_5', 'mnasnet0_75', 'mnasnet1_0', 'mnasnet1_3', 'mobilenet_v2',
    'mobilenet_v3_large', 'mobilenet_v3_small', 'regnet_x_16gf', 'regnet_x_1_6gf',
    'regnet_x_32gf', 'regnet_x_3_2gf', 'regnet_x_400mf', 'regnet_x_800mf', 'regnet_x_8gf',
    'regnet_y_128gf', 'regnet_y_16gf', 'regnet_y_1_6gf', 'regnet_y_32gf', 'regnet_y_3_2gf',
    'regnet_y_400mf', 'regnet_y_800mf', 'regnet_y_8gf', 'resnet101', 'resnet152', 'resnet18',
    'resnet34', 'resnet50', 'resnext101_32x8d', 'resnext101_64x4d', 'resnext50_32x4d',
    'shufflenet_v2_x0_5', 'shufflenet_v2_x1_0', 'shufflenet_v2_x1_5', 'shufflenet_v2_x2_0',
    'swin_b', 'swin_s', 'swin_t', 'swin_v2_b', 'swin_v2_s', 'swin_v2_t', 'vgg11', 'vgg11_bn',
    'vgg13', 'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn', 'vit_b_16', 'vit_b_32',
    'vit_h_14', 'vit_l_16', 'vit_l_32', 'wide_resnet101_2', 'wide_resnet50_2']


@MODELS.register_module()
class Recognizer(nn.Module):
    """Logits of the classes in training, embeddings in evaluation.

    ``(B, 3, H, W) -> (B, num_classes)`` float in training, ``(B, D)`` float in evaluation. The
    embedding is what the model gives to its last linear layer. As the ``image_encoder`` of a
    retriever its head is a :class:`retrieval.heads.LogitsHead`.

    Args:
        model_name: one of :data:`SUPPORTED_MODELS`.
        num_classes: how many classes there are; None: no classifier, and embeddings in training
            too.
        weights: torchvision's pretrained weights, by name (``DEFAULT``) or as a member of its
            enumeration; they are fetched.
        clf_bias: whether the classifier has a bias.
        normalize: whether embeddings have length 1, and the rows of the classifier's weights too:
            they are scaled in place at each step of training, so that logits are cosines.
        temperature: logits are divided by this; cosines alone give a soft distribution, and 0.05
            to 0.1 is usual with ``normalize``.
        checkpoint: a local file with the weights of the backbone, instead of ``weights``.
        checkpoint_prefix, key_mapping, checkpoint_strict: see :func:`load_weights`.

    Attributes:
        backbone: the model, with an ``Identity`` in the place of its last linear layer.
        classifier: the ``Linear``, or None.
        embedding_size: D.

    Raises:
        ValueError: another model (the nearest are named), a number outside its range, ``weights``
            together with ``checkpoint``, or weights that do not fit.
        TypeError: ``num_classes`` is no integer.
        ConnectionError: the weights cannot be fetched.
    """

    def __init__(self, model_name: str, num_classes: int | None = None, weights: Any = None,
                 clf_bias: bool = False, normalize: bool = True, *, temperature: float = 1.0,
                 checkpoint: str | None = None, checkpoint_prefix: str | None = None,
                 key_mapping: KeyMapping | None = None, checkpoint_strict: bool = True) -> None:
        super().__init__()
        if model_name not in SUPPORTED_MODELS:
            raise ValueError(unknown_name('model of Recognizer', model_name, SUPPORTED_MODELS))
        if not temperature > 0:
            raise ValueError(f'temperature must be above 0, got {temperature!r}.')
        if weights is not None and checkpoint is not None:
            raise ValueError('Give either weights or a checkpoint, not both: the file would '
                             'overwrite what was fetched.')
        self.model_name = model_name
        self.normalize = normalize
        self.temperature = temperature
        model = create_classifier(model_name, weights)
        if num_classes is not None:
            update_classifier(model, num_classes, bias=clf_bias)
        last = '.'.join(get_path_to_ultimate_classifier(model))
        self.backbone, classifier = split_backbone_classifier(model)
        self.embedding_size = classifier.in_features
        self.classifier = None if num_classes is None else classifier
        load_checkpoint(self.backbone, checkpoint, checkpoint_prefix, key_mapping,
                        checkpoint_strict, ignore=(f'{last}.', 'aux1.', 'aux2.', 'AuxLogits.'))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` in training, embeddings ``(B, D)`` in evaluation and where
        there is no classifier.
        """
        embeddings = self.backbone(images)
        if self.normalize:
            embeddings = functional.normalize(embeddings, dim=1)
        if not self.training or self.classifier is None:
            return embeddings
        if self.normalize:
            self._normalize_rows()
        return self.classifier(embeddings) / self.temperature

    @torch.no_grad()
    def _normalize_rows(self) -> None:
        assert self.classifier is not None
        weight = self.classifier.weight
        # Through .data, so that a second forward before the backward pass is no error: the rows
        # are the same then.
        weight.data.copy_(functional.normalize(weight, dim=1))
