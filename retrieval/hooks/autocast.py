"""Mixed precision on whatever device there is."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast`` in bfloat16, without loss scaling.

    bfloat16 has the exponent range of float32, so that gradients need no scaling; MMEngine's
    ``AmpOptimWrapper`` scales float16 and refuses the CPU.

    Args:
        device_type: ``'cpu'`` or ``'cuda'``; the model's own where it is None.
        kwargs: those of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, *args: Any, device_type: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device_type = device_type

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The engine's context for a step, with autocast around the forward pass."""
        device_type = self.device_type or next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=torch.bfloat16):
            yield
