"""A copy of a faiss index on a GPU, which answers the plain searches."""
from __future__ import annotations

from typing import Any

import numpy as np

from .faiss_engine import FaissEngine
from .faiss_factory import load_faiss, reason

_MOST = 2048  # results, and lists, that a GPU index looks at


def checked_device(device: Any) -> str | None:
    """The device as a string, None for the CPU.

    Raises:
        ValueError: it is a GPU and this faiss has none, or it is no device that faiss knows.
    """
    name = 'cpu' if device is None else str(device)
    kind, _, number = name.partition(':')
    if kind == 'cpu':
        return None
    if kind != 'cuda' or (number and not number.isdigit()):
        raise ValueError(f"The device of a FaissIndex is 'cpu', 'cuda' or 'cuda:1', got {name!r}.")
    faiss = load_faiss()
    with_gpus = hasattr(faiss, 'StandardGpuResources')
    there = faiss.get_num_gpus() if with_gpus else 0
    if int(number or 0) >= there:
        why = f'sees {there} GPUs' if with_gpus else 'is built without GPUs'
        raise ValueError(f'device={name!r} needs faiss-gpu and that GPU, but this faiss '
                         f'({faiss.__version__}) {why}. Install faiss-gpu in place of faiss-cpu, '
                         'or leave the device out.')
    return name


class GpuMirror:
    """The engine's index, copied to a GPU as it is now.

    The CPU's stays the one that is changed and saved. It also answers what a GPU index cannot:
    selections, more than 2048 results, and searches that look at more than the parameters say.

    Args:
        engine: what is copied.
        device: ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: faiss has no GPU form of this type.
    """

    def __init__(self, engine: FaissEngine, device: str) -> None:
        faiss = load_faiss()
        self._resources = faiss.StandardGpuResources()
        number = int(device.partition(':')[2] or 0)
        try:
            self._index = faiss.index_cpu_to_gpu(self._resources, number, engine.index)
        except RuntimeError as error:
            raise ValueError(f'faiss cannot move this factory to {device!r}: {reason(error)}. '
                             'Leave the device out.') from error
        self._l2 = engine.l2
        self._lists = engine.core.nprobe if engine.lists else 0

    def serves(self, fetch: int, chosen: Any, effort: int) -> bool:
        """Whether such a search is one for the GPU."""
        return chosen is None and not effort and fetch <= _MOST and self._lists <= _MOST

    def candidates(self, queries: np.ndarray, fetch: int, chosen: Any,
                   effort: int) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`FaissEngine.candidates`."""
        raw, slots = self._index.search(queries, fetch)
        return (-raw if self._l2 else raw), slots
