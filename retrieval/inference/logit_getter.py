"""``LogitGetter``, as pytorch-metric-learning has it: the logits of a classification loss."""
from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

# Where losses keep their class weights, and whether classes are the columns there.
_LAYERS = {'fc': True, 'proxies': False, 'W': True}


class LogitGetter(nn.Module):
    """Compares embeddings with the class weights of a loss.

    Args:
        classifier: a loss of pytorch-metric-learning with class weights, or any object with a
            tensor (or linear layer) of them.
        layer_name: where they are; by default ``fc``, ``proxies`` and ``W`` are tried in turn.
        transpose: whether classes are the columns of the weights; by default their shape says so,
            and where it is square the name of the layer.
        distance: ``(B, D), (C, D) -> (B, C)``; by default the loss's own.
        copy_weights: keep a copy; False shares the loss's weights, so that training shows.

    Attributes:
        weights: the class weights as the loss keeps them.

    A loss with several centres a class gives one column for each centre.

    Raises:
        ValueError: there are no class weights, or no distance.

    Example:
        >>> import torch
        >>> from pytorch_metric_learning.losses import ArcFaceLoss
        >>> LogitGetter(ArcFaceLoss(num_classes=7, embedding_size=32))(torch.randn(4, 32)).shape
        torch.Size([4, 7])
    """

    possible_layer_names = tuple(_LAYERS)

    def __init__(self, classifier: Any, layer_name: str | None = None,
                 transpose: bool | None = None, distance: Any = None,
                 copy_weights: bool = True) -> None:
        super().__init__()
        self.layer_name, weights = _find(classifier, layer_name)
        self.copy_weights = copy_weights
        self.weights = copy.deepcopy(weights) if copy_weights else weights
        self.transpose = transpose
        self.distance: Any = getattr(classifier, 'distance', None) if distance is None else distance
        if not callable(self.distance):
            raise ValueError(f'{type(classifier).__name__} has no distance of its own: give '
                             'distance=…, such as CosineSimilarity().')

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits ``(B, C)`` of embeddings ``(B, D)``.

        Raises:
            ValueError: the weights fit another width.
        """
        width = embeddings.shape[-1]
        weights = self.weights.t() if self._columns(width) else self.weights
        if embeddings.ndim != 2 or weights.shape[1] != width:
            raise ValueError(f'The class weights {tuple(self.weights.shape)} do not fit embeddings '
                             f'{tuple(embeddings.shape)}.')
        return self.distance(embeddings, weights)

    def _columns(self, width: int) -> bool:
        if self.transpose is not None:
            return self.transpose
        rows, columns = self.weights.shape
        if rows == columns == width:
            return _LAYERS.get(self.layer_name, False)
        return rows == width


def _find(classifier: Any, layer_name: str | None) -> tuple[str, Tensor]:
    tried = list(_LAYERS) if layer_name is None else [layer_name]
    for name in tried:
        layer = getattr(classifier, name, None)
        weights = getattr(layer, 'weight', layer) if isinstance(layer, nn.Module) else layer
        if isinstance(weights, Tensor) and weights.ndim == 2:
            return name, weights
    named = [name for name, value in classifier.named_parameters()] \
        if isinstance(classifier, nn.Module) else []
    raise ValueError(f'{type(classifier).__name__} has no class weights under '
                     f'{", ".join(tried)}; its parameters are: {", ".join(named) or "none"}. Give '
                     'layer_name=….')
