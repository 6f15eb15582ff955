"""Normalised softmax whose temperature is learned."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS
from .pairs import Indices, element_weights


@MODELS.register_module()
class LearnableTemperatureSoftmaxLoss(nn.Module):
    """Cross entropy of the cosines to one proxy a class, over a temperature that is learned.

    A. Zhai and H.-Y. Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019,
    where the temperature is fixed (``PML.NormalizedSoftmaxLoss``). Here its logarithm is a
    parameter, as in A. Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021, which also bounds it: before each step of training it is put back
    between its bounds, where it still has a gradient.

    Weight decay would pull the temperature towards 1: give ``log_temperature`` a ``decay_mult`` of
    0 in ``optim_wrapper.paramwise_cfg.custom_keys``.

    Args:
        num_classes: how many classes there are, C.
        embedding_size: the embeddings' width, D.
        temperature: where it starts; cosines are divided by it.
        min_temperature: it goes no lower.
        max_temperature: it goes no higher.

    Attributes:
        W: the proxies ``(D, C)``.
        log_temperature: the natural logarithm of the temperature, a scalar parameter.

    Raises:
        ValueError: a size that is not positive, or a temperature outside its bounds.
    """

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 0.05,
                 min_temperature: float = 0.01, max_temperature: float = 1.0) -> None:
        super().__init__()
        for name, value in (('num_classes', num_classes), ('embedding_size', embedding_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be a positive integer, got {value!r}.')
        if not 0 < min_temperature <= temperature <= max_temperature:
            raise ValueError('temperature must be between its bounds, all above 0; got '
                             f'{min_temperature!r} <= {temperature!r} <= {max_temperature!r}.')
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.bounds = (math.log(min_temperature), math.log(max_temperature))
        self.W = nn.Parameter(torch.randn(embedding_size, num_classes))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> float:
        """The present temperature."""
        return float(self.log_temperature.detach().exp())

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """The logits ``(B, C)`` of embeddings ``(B, D)``."""
        cosine = functional.normalize(embeddings) @ functional.normalize(self.W, dim=0)
        return cosine * torch.exp(-self.log_temperature)

    def forward(self, embeddings: Tensor, labels: Tensor,
                indices_tuple: Indices | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: ``(B, D)`` float, of any length.
            labels: ``(B,)`` int64 below ``num_classes``.
            indices_tuple: of a miner; embeddings count by how often it named them.
        """
        if self.training:  # not clamped in the graph: beyond a bound it would have no gradient
            with torch.no_grad():
                self.log_temperature.clamp_(*self.bounds)
        losses = functional.cross_entropy(self.get_logits(embeddings), labels, reduction='none')
        return (losses * element_weights(embeddings, indices_tuple)).mean()

    def extra_repr(self) -> str:
        """The arguments."""
        return (f'num_classes={self.num_classes}, embedding_size={self.embedding_size}, '
                f'temperature={self.temperature:g}')
