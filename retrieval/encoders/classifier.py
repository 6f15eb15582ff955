"""Classifiers as encoders: finding and replacing the last layer, and torchvision's `Recognizer`."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import real_number, whole_number
from ..registry import MODELS, unknown_name
from ..similarity import normalize
from .backbones.torchvision import create_classifier
from .weights import load_weights


def get_path_to_ultimate_classifier(model: nn.Module) -> list[str]:
    """The path to a model's last linear layer, as a list of attribute names.

    Args:
        model: it is a ``Linear`` itself (the path is empty), or its last child is one, or its last
            child is a ``Sequential`` that ends in one.

    Raises:
        ValueError: the model ends otherwise.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> get_path_to_ultimate_classifier(model)
        ['2']
    """
    path: list[str] = []
    layer = model
    for _ in range(2):
        children = list(layer.named_children())
        if isinstance(layer, nn.Linear) or not children:
            break
        if path and not isinstance(layer, nn.Sequential):
            break
        name, layer = children[-1]
        path.append(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f'{type(model).__name__} does not end in a linear layer, nor in a '
                         f'Sequential that does: its last layer is {type(layer).__name__}. Take a '
                         'model whose last child is the classifier.')
    return path


def get_ultimate_classifier(model: nn.Module) -> nn.Linear:
    """A model's last linear layer.

    Raises:
        ValueError: the model does not end in one; see :func:`get_path_to_ultimate_classifier`.

    Example:
        >>> get_ultimate_classifier(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
        Linear(in_features=3, out_features=2, bias=True)
    """
    layer = get_module_at_path(model, get_path_to_ultimate_classifier(model))
    assert isinstance(layer, nn.Linear)
    return layer


def get_module_at_path(model: nn.Module, path: Sequence[str]) -> nn.Module:
    """The module at a path.

    Args:
        model: where the path begins.
        path: attribute names, one a level; the empty path is the model itself.

    Raises:
        TypeError: the path is no list of strings.
        ValueError: there is no module of that name.

    Example:
        >>> get_module_at_path(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), ['1'])
        ReLU()
    """
    _check_path(path)
    module = model
    for depth, name in enumerate(path):
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            at = '.'.join(path[:depth]) or type(model).__name__
            names = ', '.join(name for name, _ in module.named_children()) or 'no modules'
            raise ValueError(f'There is no module {name!r} in {at}, of the path {list(path)}; it '
                             f'has {names}.')
        module = child
    return module


def set_module_at_path(model: nn.Module, path: Sequence[str], new_module: nn.Module) -> None:
    """Put another module in the place of the one at a path, in place.

    Args:
        model: where the path begins.
        path: attribute names, one a level.
        new_module: what is put there.

    Raises:
        TypeError: the path is no list of strings, or ``new_module`` no module.
        ValueError: there is no module at the path, or the path is empty: a model cannot be
            replaced from within.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> set_module_at_path(model, ['1'], nn.Identity())
        >>> model[1]
        Identity()
    """
    _check_path(path)
    if not isinstance(new_module, nn.Module):
        raise TypeError(f'new_module must be a module, got {type(new_module).__name__}.')
    if not path:
        raise ValueError('The empty path is the model itself, which cannot be replaced in place: '
                         'use the new module instead of it.')
    get_module_at_path(model, path)
    setattr(get_module_at_path(model, path[:-1]), path[-1], new_module)


def update_classifier(model: nn.Module, num_classes: int, bias: bool = False) -> nn.Module:
    """Put a new classifier in the place of a model's last linear layer, in place.

    Args:
        model: see :func:`get_path_to_ultimate_classifier`.
        num_classes: how many logits the new one gives.
        bias: whether it has a bias.

    Returns:
        The model; one that is a ``Linear`` itself gets another size and other weights.

    Raises:
        ValueError: the model does not end in a linear layer, or ``num_classes`` is below 1.
        TypeError: ``num_classes`` is no integer.

    Example:
        >>> update_classifier(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), num_classes=7)[1]
        Linear(in_features=3, out_features=7, bias=False)
    """
    num_classes = whole_number('num_classes', num_classes)
    path = get_path_to_ultimate_classifier(model)
    old = get_ultimate_classifier(model)
    new = nn.Linear(old.in_features, num_classes, bias=bias, device=old.weight.device,
                    dtype=old.weight.dtype).train(old.training)
    if path:
        set_module_at_path(model, path, new)
    else:
        old.weight, old.bias, old.out_features = new.weight, new.bias, num_classes
    return model


def split_backbone_classifier(model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """A model's backbone and its classifier.

    Args:
        model: see :func:`get_path_to_ultimate_classifier`; it is edited.

    Returns:
        The model with an ``Identity`` in the classifier's place, and the classifier. Where the
        model is a ``Linear`` itself the backbone is a bare ``Identity``.

    Raises:
        ValueError: the model does not end in a linear layer.

    Example:
        >>> backbone, classifier = split_backbone_classifier(
        ...     nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
        >>> backbone(torch.zeros(1, 4)).shape
        torch.Size([1, 3])
    """
    path = get_path_to_ultimate_classifier(model)
    classifier = get_ultimate_classifier(model)
    if not path:
        return nn.Identity(), classifier
    set_module_at_path(model, path, nn.Identity())
    return model, classifier


def _check_path(path: Sequence[str]) -> None:
    if not isinstance(path, (list, tuple)) or not all(isinstance(name, str) for name in path):
        raise TypeError("A path is a list of attribute names, as ['classifier', '1'], got "
                        f'{path!r}.')


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
        checkpoint: a local file with the weights of the backbone, instead of ``weights``: a path,
            or what :class:`~retrieval.encoders.Checkpoint` takes.

    Attributes:
        backbone: the model, with an ``Identity`` in the place of its last linear layer.
        classifier: the ``Linear``, or None.
        embedding_size: D.

    Raises:
        ValueError: another model (the nearest are named), a number outside its range, ``weights``
            together with ``checkpoint``, or weights that do not fit.
        TypeError: ``num_classes`` is no integer.
        ConnectionError: the weights cannot be fetched.

    Example:
        >>> recognizer = Recognizer('shufflenet_v2_x0_5', num_classes=5).eval()
        >>> recognizer(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 1024])
    """

    def __init__(self, model_name: str, num_classes: int | None = None, weights: Any = None,
                 clf_bias: bool = False, normalize: bool = True, *, temperature: float = 1.0,
                 checkpoint: Any = None) -> None:
        super().__init__()
        if model_name not in SUPPORTED_MODELS:
            raise ValueError(unknown_name('model of Recognizer', model_name, SUPPORTED_MODELS))
        if weights is not None and checkpoint is not None:
            raise ValueError('Give either weights or a checkpoint, not both: the file would '
                             'overwrite what was fetched.')
        self.model_name = model_name
        self.normalize = normalize
        self.temperature = real_number('temperature', temperature, above=0)
        model = create_classifier(model_name, weights)
        if num_classes is not None:
            update_classifier(model, num_classes, bias=clf_bias)
        last = '.'.join(get_path_to_ultimate_classifier(model))
        self.backbone, classifier = split_backbone_classifier(model)
        self.embedding_size = classifier.in_features
        self.classifier = None if num_classes is None else classifier
        if checkpoint is not None:
            load_weights(self.backbone, checkpoint, (f'{last}.', 'aux1.', 'aux2.', 'AuxLogits.'))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` in training, embeddings ``(B, D)`` in evaluation and where
        there is no classifier.
        """
        embeddings = self.backbone(images)
        if self.normalize:
            embeddings = normalize(embeddings)
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
        weight.data.copy_(normalize(weight))
