"""Training a faiss index on a sample."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .faiss_engine import FaissEngine
from .faiss_factory import build, reason, rows_needed, set_seed, skip_polysemous

_OF_EACH = 64  # training rows for each centroid, where no number is given
_LEAST = 2 ** 16


@dataclass(frozen=True)
class Training:
    """How an index is made for the first vectors that it sees.

    Args:
        factory: faiss's factory string.
        similarity: a name of ours.
        size: how many rows to train on at most; None for 64 for each centroid, at least 65,536.
        seed: of the draw of the sample, and of faiss's clustering.
        polysemous: train product quantizers for the search parameter ``ht``.
    """

    factory: str
    similarity: str
    size: int | None
    seed: int
    polysemous: bool = False

    def engine(self, vectors: Tensor) -> FaissEngine:
        """An empty engine, trained on a sample of prepared vectors ``(n, D)``.

        Raises:
            ValueError: the factory does not fit the width, or there are too few rows.
        """
        index = build(self.factory, vectors.shape[1], self.similarity)
        set_seed(index, self.seed)
        if not self.polysemous:
            skip_polysemous(index)
        if not index.is_trained:
            need = rows_needed(index)
            sample = self.sample(vectors, max(_LEAST, _OF_EACH * need))
            if len(sample) < need:
                raise ValueError(f'The factory {self.factory!r} needs at least {need} rows to '
                                 f'train on, got {len(sample)}: add more together, call train() '
                                 'with more, or use a smaller factory.')
            try:
                index.train(sample.numpy())
            except RuntimeError as error:
                raise ValueError(f'faiss could not train {self.factory!r} on {len(sample)} rows: '
                                 f'{reason(error)}') from error
        return FaissEngine(index, self.similarity)

    def sample(self, vectors: Tensor, default: int) -> Tensor:
        """Rows drawn without repeats, in the order in which they stand."""
        size = default if self.size is None else self.size
        if len(vectors) <= size:
            return vectors
        generator = torch.Generator().manual_seed(self.seed)
        return vectors[torch.randperm(len(vectors), generator=generator)[:size].sort().values]
