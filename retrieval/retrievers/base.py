"""The contract of a retriever."""
from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor

from ..encoders.preprocessor import parts_of_one_size
from ..structures import RetrievalDataSample

MODES = ('tensor', 'predict', 'loss')


class BaseRetriever(BaseModel, metaclass=ABCMeta):
    """A model that ranks a gallery by similarity to its inputs.

    Subclasses write :meth:`extract_feat`, :meth:`loss`, :meth:`matching`, :meth:`predict`,
    :meth:`prepare_prototype` and :meth:`dump_prototype`.
    """

    def forward(self, inputs: Tensor, data_samples: list[RetrievalDataSample] | None = None,
                mode: str = 'tensor') -> Any:
        """Run the model.

        Args:
            inputs: preprocessed images ``(B, C, H, W)`` float32.
            data_samples: their annotations; wanted by ``mode='loss'``.
            mode: ``'tensor'`` for what :meth:`extract_feat` returns, ``'predict'`` for the data
                samples with ``pred_score`` and ``pred_label``, ``'loss'`` for a dict of scalars.

        Raises:
            ValueError: the mode is another one.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        raise ValueError(f'Unknown mode {mode!r}. Valid modes: {", ".join(MODES)}.')

    def test_step(self, data: Any) -> list[Any]:
        """The data samples of a loader's batch, with what was found for each.

        Images of unequal size are encoded one size after the other, so that the answer for an
        image does not depend on those beside it.
        """
        found: dict[int, Any] = {}
        for places, part in parts_of_one_size(data):
            found.update(zip(places, super().test_step(part), strict=True))
        return [found[place] for place in sorted(found)]

    def val_step(self, data: Any) -> list[Any]:
        """As :meth:`test_step`."""
        return self.test_step(data)

    @abstractmethod
    def extract_feat(self, inputs: Tensor) -> Any:
        """The image encoder's output for the images ``(B, C, H, W)``."""

    @abstractmethod
    def loss(self, inputs: Tensor,
             data_samples: list[RetrievalDataSample] | None) -> dict[str, Tensor]:
        """The losses of a batch by name."""

    @abstractmethod
    def matching(self, inputs: Tensor) -> dict[str, Tensor]:
        """The similarity of embeddings ``(Q, D)`` to every row of the prototype."""

    @abstractmethod
    def predict(self, inputs: Tensor, data_samples: list[RetrievalDataSample] | None = None,
                **kwargs: Any) -> list[RetrievalDataSample]:
        """The images' data samples, with what was found for each."""

    @abstractmethod
    def prepare_prototype(self) -> None:
        """Make the gallery and its index from the prototype, with the present weights."""

    @abstractmethod
    def dump_prototype(self, path: str) -> None:
        """Write the gallery to a file."""

    def search_in(self, prototype: Any = None, pipeline: Sequence[Any] | None = None,
                  dataset: Any = None) -> None:
        """Search in another prototype from now on, or for the queries of another pipeline.

        Args:
            prototype: the prototype, or None for the present one.
            pipeline: config of the queries' pipeline, for retrievers that compare it.
            dataset: what the prototype was encoded from, for retrievers that look at its pictures.
        """
        if prototype is not None:
            self.prototype = prototype

    def begin_evaluation(self, dataset: Any) -> Any:
        """Prepare the prototype, with the present weights, for the queries of a dataset.

        Returns:
            The gallery for the metrics, or None where they are to do without.
        """
        self.prepare_prototype()

    def end_evaluation(self) -> None:
        """The queries of the evaluation have been searched."""
