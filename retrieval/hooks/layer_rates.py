"""Lower learning rates for the earlier layers of a network that was trained before."""
from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from ..checks import real_number
from ..distributed import unwrapped
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, unknown_name
from .freeze import part_of

_OF_THE_ENGINE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
                  'dwconv_decay_mult', 'flat_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerRatesConstructor(DefaultOptimWrapperConstructor):
    """Lets the rates rise from the first layer of a part to its last.

    The early layers of a backbone know edges and colours, which serve any picture; what they know
    is soon spoilt by the gradients of a few pictures. Their rates are multiplied by a factor that
    grows from layer to layer by equal ratios, from ``first_layer_mult`` to 1. Layers are the
    modules with weights to train, in the order in which the part defines them.

    Args:
        optim_wrapper_cfg: the engine's, with an ``optimizer`` that has a rate.
        paramwise_cfg: the engine's (``custom_keys``, ``norm_decay_mult`` …), by which its factor is
            multiplied, and beside them ``first_layer_mult``, above 0 and at most 1, by default 0.1,
            and ``layers``, the dotted name of the part, by default ``'image_encoder.backbone'``.

    Raises:
        ValueError: a factor outside (0, 1], a part that is not in the model, no rate, or a setting
            that neither this nor the engine knows.

    Example:
        >>> model = nn.ModuleDict({'backbone': nn.Sequential(*(nn.Linear(1, 1) for _ in range(3)))})
        >>> make = LayerRatesConstructor(
        ...     dict(optimizer=dict(type='SGD', lr=1.0)),
        ...     dict(first_layer_mult=0.01, layers='backbone'))
        >>> [round(group['lr'], 4) for group in make(model).param_groups[:6:2]]
        [0.01, 0.1, 1.0]
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any],
                 paramwise_cfg: dict[str, Any] | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.first = real_number('first_layer_mult', options.pop('first_layer_mult', 0.1), above=0,
                                 most=1)
        self.layers = options.pop('layers', 'image_encoder.backbone')
        for name in options:
            if name not in _OF_THE_ENGINE:
                raise ValueError(unknown_name('setting in paramwise_cfg', name, [
                    'first_layer_mult', 'layers', *_OF_THE_ENGINE]))
        # The engine makes a group of each weight where it is given anything at all.
        super().__init__(optim_wrapper_cfg, {'bypass_duplicate': False, **options})
        if self.base_lr is None:
            raise ValueError('LayerRatesConstructor multiplies the rate of the optimizer, and '
                             f'{self.optimizer_cfg} has none: write lr=….')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimiser of a model, wrapped."""
        layers = [[weight for weight in layer.parameters(recurse=False) if weight.requires_grad]
                  for layer in part_of(unwrapped(model), self.layers).modules()]
        layers = [weights for weights in layers if weights]
        steps = max(len(layers) - 1, 1)
        self._mult = {id(weight): self.first ** (1 - number / steps)
                      for number, weights in enumerate(layers) for weight in weights}
        return super().__call__(model)

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '',
                   is_dcn_module: Any = None) -> None:
        """The engine's groups, one a weight, with their rates."""
        if not any(weight.requires_grad for weight in module.parameters()):
            return  # the engine would say so of each weight
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model; the engine comes back for each of its parts
            for group in params:
                group['lr'] = (group.get('lr', self.base_lr)
                               * self._mult.get(id(group['params'][0]), 1.0))
