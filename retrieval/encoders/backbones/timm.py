"""Any model of timm as a backbone."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS, unknown_name
from ..build import keep_weights
from ..weights import load_weights
from .hub import HINT, hub


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm without pooling and classifier.

    ``(B, 3, H, W) ->`` a feature map ``(B, C, H', W')``, or a transformer's tokens
    ``(B, N, C)``. Channels-last maps (Swin) are turned to channels-first.

    Args:
        model_name: a name of timm, such as ``resnet50`` or ``vit_small_patch16_224``.
        pretrained: fetch the weights from the hub.
        checkpoint: load weights from this local file instead: a path, or what
            :class:`~retrieval.encoders.Checkpoint` takes.
        init_cfg: MMEngine's initialisation.
        pooled: return the model's own pooled output ``(B, C)`` instead, what it gives its
            classifier, for an encoder with ``pooling=None``.
        kwargs: handed to ``timm.create_model``: ``in_chans``, ``img_size``, ``drop_path_rate`` …

    Attributes:
        num_features: C.
        num_prefix_tokens: how many of the tokens stand before the patches'.
        has_class_token: whether the first token is the class token.

    Raises:
        ValueError: no model of that name (the nearest are named), ``pretrained`` together with
            ``checkpoint``, or weights that do not fit.
        TypeError: an argument that the model does not take.
        ConnectionError: the weights cannot be fetched.
        FileNotFoundError: there is no file ``checkpoint``.

    Example:
        >>> backbone = TimmBackbone('test_resnet')
        >>> import torch
        >>> backbone(torch.rand(1, 3, 64, 64)).shape[1] == backbone.num_features
        True
    """

    def __init__(self, model_name: str, pretrained: bool = False, checkpoint: Any = None,
                 init_cfg: dict[str, Any] | None = None, *, pooled: bool = False,
                 **kwargs: Any) -> None:
        super().__init__(init_cfg)
        if pretrained and checkpoint is not None:
            raise ValueError('Give either pretrained=True or a checkpoint, not both: the file '
                             'would overwrite what was fetched.')
        self.model_name = model_name
        self.pooled = pooled
        self.model = keep_weights(_create(model_name, pretrained, kwargs, pooled))
        if checkpoint is not None:
            load_weights(self.model, checkpoint, _classifier_names(self.model))
        own = 'head_hidden_size' if pooled else 'num_features'
        self.num_features: int = getattr(self.model, own)
        self.has_class_token = getattr(self.model, 'cls_token', None) is not None
        self.num_prefix_tokens: int = getattr(self.model, 'num_prefix_tokens',
                                              int(self.has_class_token))

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images.

        Raises:
            ValueError: the model refuses images of this size.
        """
        try:
            features = self.model.forward_features(images)  # type: ignore[operator]
        except AssertionError as error:
            raise ValueError(f'{self.model_name} refuses images {tuple(images.shape)}: {error}. '
                             'Resize them, or build the model for them with img_size=…') from error
        if not isinstance(features, Tensor):
            raise TypeError(f'{self.model_name} returns {type(features).__name__} instead of one '
                            'tensor of features, so it cannot be a backbone.')
        if self.pooled:
            return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        if features.ndim == 4 and getattr(self.model, 'output_fmt', 'NCHW') == 'NHWC':
            features = features.permute(0, 3, 1, 2)
        return features


def _classifier_names(model: nn.Module) -> list[str]:
    """Beginnings of the names that a file has for the classifier, which the backbone lacks."""
    names = (getattr(model, 'pretrained_cfg', None) or {}).get('classifier') or ()
    return [f'{name}.' for name in ([names] if isinstance(names, str) else names)]


def _create(model_name: str, pretrained: bool, kwargs: dict[str, Any],
            pooled: bool) -> nn.Module:
    import timm

    if not isinstance(model_name, str):
        raise TypeError(f'model_name must be a name of timm, got {type(model_name).__name__}.')
    if ':' not in model_name and not timm.is_model(model_name):
        raise ValueError(unknown_name('timm model', model_name, timm.list_models()))
    # Most heads leave nothing behind when asked for no pooling; a few know only poolings of theirs.
    for options in ({},) if pooled else ({'global_pool': ''}, {}):
        try:
            with hub() if pretrained else nullcontext():
                return timm.create_model(model_name, pretrained=pretrained, num_classes=0,
                                         **{**options, **kwargs})
        except (AssertionError, TypeError) as error:
            refusal = error
        except RuntimeError as error:  # no such tag, or a model that was never trained
            known = timm.list_pretrained(f'{model_name.split(".")[0]}.*')
            raise ValueError(f'timm refuses {model_name!r}: {error} Trained models of this '
                             f'architecture: {", ".join(known) or "none"}.') from error
        except Exception as error:  # whatever the hub's client of the day raises
            if not pretrained:
                raise
            raise ConnectionError(
                f'The weights of {model_name!r} could not be fetched ({type(error).__name__}). '
                f'{HINT}: pretrained=False.') from error
    raise TypeError(f'timm refuses the arguments {kwargs} for {model_name!r}: {refusal}'
                    ) from refusal
