"""The base of our metrics: every sample once, whatever the number of processes."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..distributed import all_gather_list, all_gather_rows, rank, world_size
from ..structures import sample_id_of

Columns = dict[str, Any]


class GatheredMetric(BaseMetric):
    """A metric whose samples are gathered by their number in the dataset.

    MMEngine interleaves the processes' results by position, which is right for one sampler only,
    and sends them through files. Here samples are recognised by ``sample_idx`` and ``sample_id``,
    so that those which a sampler repeats to fill the last batch count once.

    :meth:`columns_of` says what is kept of samples; :meth:`compute_metrics` is called on every
    process with the columns of all samples, in the order of their numbers. What it returns on the
    first process is what every process reports, with the prefix before each name.
    """

    gallery: Any = None

    def set_gallery(self, gallery: Any) -> None:
        """Take the gallery that the retriever searches (``embeddings``, ``ids``, ``labels``)."""
        self.gallery = gallery

    @abstractmethod
    def columns_of(self, data_samples: Sequence[dict[str, Any]]) -> list[Columns]:
        """The columns that are kept of each sample of a batch; the same names for every sample."""

    @abstractmethod
    def compute_metrics(self, columns: Columns) -> dict[str, float]:
        """The results over all samples; each column a tensor ``(S, …)`` or a list of length S."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what :meth:`columns_of` says of every sample of a batch."""
        for data_sample, columns in zip(data_samples, self.columns_of(data_samples), strict=True):
            number = data_sample.get('sample_idx')
            place = len(self.results) * world_size() + rank() if number is None else int(number)
            self.results.append((number is None, place, sample_id_of(data_sample) or '',
                                 columns))

    def evaluate(self, size: int) -> dict[str, Any]:
        """The results over all processes. ``size`` is the number of samples of the dataset.

        Raises:
            ValueError: no sample was processed.
        """
        local = [(place, name, columns) for unnumbered, place, name, columns in self.results
                 if not unnumbered or place < size]
        columns = gather_columns([(place, name) for place, name, _ in local],
                                 [kept for *_, kept in local])
        if columns is None:
            raise ValueError(f'{type(self).__name__} was given no samples: is the dataset empty?')
        results = [self.compute_metrics(columns)]
        broadcast_object_list(results)
        self.results.clear()
        return dict(zip(self.prefixed(results[0]), results[0].values(), strict=True))

    def prefixed(self, names: Iterable[str]) -> list[str]:
        """The names with the metric's prefix before each."""
        return [f'{self.prefix}/{name}' if self.prefix else name for name in names]


def gather_columns(keys: Sequence[tuple[int, str]],
                   samples: Sequence[Columns]) -> Columns | None:
    """The samples of all processes, each key once and in rising order, as columns.

    A column is a tensor where every process holds tensors of one dtype and shape under that name.
    Returns None where no process has a sample.
    """
    forms = [form for form in all_gather_list([_form(samples)]) if form]
    everyone = all_gather_list(keys)
    if not forms:
        return None
    places: dict[tuple[int, str], int] = {}
    for place, key in enumerate(everyone):
        places.setdefault(key, place)
    keep = [places[key] for key in sorted(places)]
    columns: Columns = {}
    for name, form in forms[0].items():
        values = [sample[name] for sample in samples]
        if form is not None and all(other[name] == form for other in forms):
            dtype, shape = form
            rows = torch.stack(values) if values else torch.zeros((0, *shape), dtype=dtype)
            columns[name] = all_gather_rows(rows)[keep]
        else:
            gathered = all_gather_list(values)
            columns[name] = [gathered[place] for place in keep]
    columns['sample_id'] = [everyone[place][1] for place in keep]
    return columns


def _form(samples: Sequence[Columns]) -> dict[str, tuple[torch.dtype, tuple[int, ...]] | None]:
    """Of each column the dtype and shape that all its tensors have, or None."""
    if not samples:
        return {}
    forms: dict[str, Any] = {}
    for name in samples[0]:
        seen = {(value.dtype, tuple(value.shape)) if isinstance(value, Tensor) else None
                for value in (sample[name] for sample in samples)}
        forms[name] = seen.pop() if len(seen) == 1 else None
    return forms
