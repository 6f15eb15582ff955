"""torchvision's image classifiers as backbones."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.error import URLError

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ...registry import MODELS, unknown_name
from ..weights import load_weights
from .hub import HINT

# The children that come after the features; every other child is run in turn.
_HEAD = ('avgpool', 'flatten', 'dropout', 'fc', 'classifier', 'head', 'heads', 'aux1', 'aux2',
         'AuxLogits')


@MODELS.register_module()
class TorchvisionBackbone(BaseModule):
    """A classifier of torchvision without pooling and classifier.

    ``(B, 3, H, W) ->`` a feature map ``(B, C, H', W')``, or tokens ``(B, N, C)`` of a vision
    transformer, with the class token first.

    Args:
        model_name: a classifier's name, such as ``resnet50`` or ``vit_b_16``.
        weights: torchvision's name of pretrained weights, such as ``DEFAULT`` or
            ``IMAGENET1K_V2``; they are fetched.
        checkpoint: load weights from this local file instead: a path, or what
            :class:`~retrieval.encoders.Checkpoint` takes.
        init_cfg: MMEngine's initialisation.
        kwargs: handed to torchvision. A local file of googlenet or inception_v3 that was trained
            by torchvision wants ``transform_input=True``.

    Attributes:
        num_features: C.
        num_prefix_tokens: 1 for a vision transformer, else 0.
        has_class_token: whether it is a vision transformer.

    Raises:
        ValueError: no classifier or weights of that name (the nearest are named), ``weights``
            together with ``checkpoint``, or weights that do not fit.
        TypeError: an argument that the model does not take.
        ConnectionError: the weights cannot be fetched.
        FileNotFoundError: there is no file ``checkpoint``.

    Example:
        >>> backbone = TorchvisionBackbone('shufflenet_v2_x0_5')
        >>> backbone.eval()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1024, 2, 2])
    """

    def __init__(self, model_name: str, weights: str | None = None, checkpoint: Any = None,
                 init_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(init_cfg)
        if weights is not None and checkpoint is not None:
            raise ValueError('Give either weights or a checkpoint, not both: the file would '
                             'overwrite what was fetched.')
        self.model_name = model_name
        self.model = create_classifier(model_name, weights, kwargs)
        self.num_features = _width(self.model)
        self.has_class_token = hasattr(self.model, 'class_token')
        self.num_prefix_tokens = int(self.has_class_token)
        for name in _HEAD:
            if name in dict(self.model.named_children()):
                delattr(self.model, name)
        if checkpoint is not None:
            load_weights(self.model, checkpoint, [f'{name}.' for name in _HEAD])

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images.

        Raises:
            ValueError: a vision transformer refuses images of this size.
        """
        if self.has_class_token:
            return self._tokens(images)
        if getattr(self.model, 'transform_input', False):
            images = self.model._transform_input(images)  # type: ignore[operator]
        features = images
        for layer in self._layers():
            features = layer(features)
        # The last activation of DenseNet stands in its forward, not among its children.
        return functional.relu(features) if self.model_name.startswith('densenet') else features

    def _layers(self) -> Iterable[nn.Module]:
        for child in self.model.children():
            if isinstance(child, nn.ModuleList):
                yield from child
            else:
                yield child

    def _tokens(self, images: Tensor) -> Tensor:
        model: Any = self.model
        if tuple(images.shape[-2:]) != (model.image_size, model.image_size):
            raise ValueError(f'{self.model_name} takes images of {model.image_size} x '
                             f'{model.image_size} pixels, got {tuple(images.shape[-2:])}. Resize '
                             'them, or build the model for them with image_size=…')
        patches = model._process_input(images)
        class_token = model.class_token.expand(len(images), -1, -1)
        return model.encoder(torch.cat([class_token, patches], dim=1))


def _width(model: nn.Module) -> int:
    """The number of channels before pooling, read off the layers around it."""
    children = dict(model.named_children())
    if 'features' in children and 'avgpool' in children and isinstance(
            children.get('classifier'), nn.Sequential):
        # VGG and AlexNet flatten the map, so their classifier is wider than its channels.
        return [m for m in children['features'].modules() if isinstance(m, nn.Conv2d)
                ][-1].out_channels
    for name in ('fc', 'classifier', 'head', 'heads'):
        for layer in children[name].modules() if name in children else ():
            if isinstance(layer, nn.Linear):
                return layer.in_features
            if isinstance(layer, nn.Conv2d):
                return layer.in_channels
    raise ValueError(f'{type(model).__name__} has no classifier whose width is known.')


def create_classifier(model_name: str, weights: Any = None,
                      kwargs: dict[str, Any] | None = None) -> nn.Module:
    """A classifier of torchvision, without auxiliary classifiers.

    Args:
        model_name: its name.
        weights: the name of pretrained weights, or a member of torchvision's enumeration.
        kwargs: handed to torchvision.

    Raises:
        ValueError: no classifier or weights of that name; the nearest are named.
        TypeError: an argument that the model does not take.
        ConnectionError: the weights cannot be fetched.
    """
    from torchvision import models

    kwargs = dict(kwargs or {})
    names = models.list_models(module=models)
    if model_name not in names:
        raise ValueError(unknown_name('torchvision classifier', model_name, names))
    if isinstance(weights, str):
        known = models.get_model_weights(model_name).__members__
        if weights not in {*known, 'DEFAULT'}:
            raise ValueError(unknown_name(f'weights of {model_name}', weights,
                                          [*known, 'DEFAULT']))
    if model_name in ('googlenet', 'inception_v3') and weights is None:
        kwargs = {'init_weights': True, 'aux_logits': False, **kwargs}
    try:
        return _without_auxiliary(models.get_model(model_name, weights=weights, **kwargs))
    except TypeError as error:
        raise TypeError(f'torchvision refuses the arguments {kwargs} for {model_name!r}: {error}'
                        ) from error
    except URLError as error:
        raise ConnectionError(
            f'The weights {weights} of {model_name!r} could not be fetched ({error.reason}). '
            f'{HINT}: weights=None.') from error


def _without_auxiliary(model: Any) -> nn.Module:
    """googlenet and inception_v3 come with them where weights are fetched; the loss that they
    were for is not taken here, so they would never get a gradient.
    """
    for name in ('aux1', 'aux2', 'AuxLogits'):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
            model.aux_logits = False
    return model
