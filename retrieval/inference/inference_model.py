"""``InferenceModel``, as pytorch-metric-learning has it, on the package's own engine."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..checks import whole_number
from ..retrievers import evaluation_mode
from ..similarity import normalize
from .knn import CallableKNN, FaissIndexer, FaissKNN, IndexerKNN
from .match_finder import MatchFinder

if TYPE_CHECKING:
    from ..evaluation.calibration import MatchCalibration


class InferenceModel:
    """A trained model that finds neighbours and matches.

    Args:
        trunk: the model; its embeddings are ``(B, D)``.
        embedder: what turns the trunk's output into embeddings; None where nothing does.
        match_finder: by default ``MatchFinder(CosineSimilarity(), 0.9)``.
        normalize_embeddings: scale embeddings to length 1.
        knn_func: by default ``FaissKNN(reset_before=False, reset_after=False)``; a
            :class:`CustomKNN`, or any ``knn(query, k, reference, ref_includes_query)``.
        data_device: where batches are put; by default where the model's weights are, and for a
            model without weights on a GPU where there is one.
        dtype: what batches are cast to, or None.
        indexer: in the place of ``knn_func``, an index with the methods of releases before 1.1,
            such as :class:`FaissIndexer`; neighbours then come as ``(indices, distances)``.
        batch_size: images that are embedded at once, where a call does not say.
        calibration: makes probabilities of scores, in :meth:`match_probability` and
            :meth:`identify`; it goes to the match finder. Where no ``match_finder`` is given, its
            threshold is the default.

    The orders of arguments of older releases are understood as well: ``(trunk, embedder,
    match_finder, indexer, normalize_embeddings, batch_size)``, and the same with
    ``normalize_embeddings`` before ``indexer``.

    Embedding happens in evaluation mode and without gradients; every submodule has its own mode
    back afterwards, and no weight is moved.

    Attributes:
        indexer: the index that was given, or a :class:`FaissIndexer` of what ``knn_func`` searches;
            None where it is a function of another kind.

    Raises:
        TypeError, ValueError: an argument is of another type, or two contradict each other.

    Example:
        >>> model = InferenceModel(nn.Identity())
        >>> model.train_knn(torch.tensor([[1., 0], [1, 1], [0, 1]]))
        >>> distances, indices = model.get_nearest_neighbors(torch.tensor([[0., 3]]), k=2)
        >>> indices
        tensor([[2, 1]])
    """

    def __init__(self, trunk: Any, embedder: Any = None, match_finder: MatchFinder | None = None,
                 normalize_embeddings: Any = True, knn_func: Any = None,
                 data_device: Any = None, dtype: torch.dtype | None = None,
                 *, indexer: Any = None, batch_size: int = 64,
                 calibration: MatchCalibration | None = None) -> None:
        if normalize_embeddings is None or hasattr(normalize_embeddings, 'search_nn'):
            indexer, normalize_embeddings, knn_func = (
                normalize_embeddings or FaissIndexer(), knn_func is not False, None)
            batch_size, data_device = _number_first(data_device, batch_size)
        elif hasattr(knn_func, 'search_nn'):
            indexer, knn_func = knn_func, None
            batch_size, data_device = _number_first(data_device, batch_size)
        for name, part in (('trunk', trunk), ('embedder', embedder)):
            if not callable(part) and not (name == 'embedder' and part is None):
                raise TypeError(f'{name} must be a module, got {type(part).__name__}.')
        self.trunk = trunk
        self.embedder = nn.Identity() if embedder is None else embedder
        self.match_finder = _match_finder(match_finder, calibration)
        self.normalize_embeddings = normalize_embeddings
        self.knn_func = _knn_function(knn_func, indexer)
        self._indices_first = indexer is not None
        self.indexer = FaissIndexer.of(self.knn_func) if indexer is None else indexer
        self.data_device = torch.device(_default_device(self.trunk, self.embedder)
                                        if data_device is None else data_device)
        self.dtype = dtype
        self.batch_size = whole_number('batch_size', batch_size)

    # Embedding -----------------------------------------------------------------------------------

    @torch.no_grad()
    def get_embeddings(self, x: Any) -> Tensor:
        """The embeddings ``(n, D)`` of a tensor or a list, in batches; whatever else the trunk
        takes (a dict of tokens, say) is one batch.
        """
        if isinstance(x, (Tensor, np.ndarray, list)):
            return self.get_embeddings_from_tensor_or_dataset(x, self.batch_size)
        with self._evaluation():
            return self._embed(x)

    @torch.no_grad()
    def get_embeddings_from_tensor_or_dataset(self, inputs: Any,
                                              batch_size: int | None = None) -> Tensor:
        """The embeddings ``(N, D)`` of a tensor, array, list, dataset or dataloader."""
        return self._embeddings_and_labels(inputs, batch_size)[0]

    def _embeddings_and_labels(self, inputs: Any,
                               batch_size: int | None) -> tuple[Tensor, Tensor | None]:
        size = self.batch_size if batch_size is None else whole_number('batch_size', batch_size)
        collected = _Collected(_count(inputs))
        with self._evaluation():
            for batch, labels in _batches(inputs, size):
                collected.add(self._embed(batch), labels)
        return collected.joined()

    def _evaluation(self) -> ExitStack:
        stack = ExitStack()
        for part in (self.trunk, self.embedder):
            if isinstance(part, nn.Module):
                stack.enter_context(evaluation_mode(part))
        return stack

    def _embed(self, batch: Any) -> Tensor:
        embeddings = self.embedder(self.trunk(self._moved(batch)))
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
            got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else \
                type(embeddings).__name__
            raise ValueError(f'The model must return embeddings (B, D), got {got}: give an '
                             'embedder that makes such ones.')
        return normalize(embeddings) if self.normalize_embeddings else embeddings

    def _moved(self, batch: Any) -> Any:
        if isinstance(batch, Tensor):
            return batch.to(device=self.data_device, dtype=self.dtype)
        if isinstance(batch, dict):
            return {name: self._moved(value) for name, value in batch.items()}
        return batch

    # Neighbours ----------------------------------------------------------------------------------

    @torch.no_grad()
    def train_knn(self, inputs: Any, batch_size: int | None = None, *,
                  ids: Iterable[Any] | None = None, labels: Any = None,
                  emb_dim: int | None = None) -> None:
        """Make a tensor, array, list, dataset or dataloader what is searched.

        Args:
            inputs: a dataset's items are ``(input, label)``; integer labels are kept.
            batch_size: how many are embedded at once.
            ids: a unique id for each, kept and saved with the index.
            labels: a class for each, in place of the dataset's.
            emb_dim: the width that older releases asked for; the embeddings must have it.

        Raises:
            ValueError: the embeddings have another width than ``emb_dim``.
        """
        self._index(self.knn_func.train, inputs, batch_size, ids, labels, emb_dim)

    @torch.no_grad()
    def add_to_knn(self, inputs: Any, batch_size: int | None = None, *,
                   ids: Iterable[Any] | None = None, labels: Any = None) -> None:
        """Add to what is searched; see :meth:`train_knn`."""
        self._index(self.knn_func.add, inputs, batch_size, ids, labels)

    def _index(self, put: Any, inputs: Any, batch_size: int | None, ids: Any, labels: Any,
               emb_dim: int | None = None) -> None:
        embeddings, found = self._embeddings_and_labels(inputs, batch_size)
        labels = found if labels is None else labels
        if emb_dim not in (None, embeddings.shape[1]):
            raise ValueError(f'emb_dim is {emb_dim}, and the model gives embeddings of width '
                             f'{embeddings.shape[1]}: leave it out.')
        if hasattr(self.knn_func, 'names'):
            put(embeddings, ids, labels)
        elif ids is not None:
            raise TypeError(f'{type(self.knn_func).__name__} keeps no ids: leave them out, or take '
                            'a FaissKNN or CustomKNN of this package.')
        else:
            put(embeddings)

    def get_nearest_neighbors(self, query: Any, k: int) -> tuple[Tensor, Tensor]:
        """The neighbours of queries among what was indexed.

        Args:
            query: a tensor or list of inputs, of any number.
            k: how many neighbours; more than there are gives what there are.

        Returns:
            Distances ``(Q, k)`` and rows ``(Q, k)``, nearest first; rows and distances, as older
            releases had it, where an ``indexer`` was given.

        Raises:
            ValueError: nothing was indexed (a ``RuntimeError`` with an ``indexer``).
        """
        k = whole_number('k', k)
        check = getattr(self.knn_func, 'check_trained', None)
        if check is not None:  # before the trunk runs
            check()
        distances, rows = self.knn_func(self.get_embeddings(query), k)
        return (rows, distances) if self._indices_first else (distances, rows)

    def identify(self, query: Any, k: int = 1,
                 threshold: float | None = None) -> list[dict[str, Any]]:
        """Open-set search: who each query is, or nobody.

        Args:
            query: a tensor or list of inputs.
            k: how many neighbours are looked at.
            threshold: of the match finder's distance, in place of its own.

        Returns:
            For each query ``dict(match, results)``: ``match`` says whether a neighbour reaches
            the threshold, and ``results`` holds those that do, as dicts with ``row``, ``id``,
            ``label`` (None where not known), ``score`` and, with a calibration, ``probability``.
        """
        if not hasattr(self.knn_func, 'vectors') or not hasattr(self.knn_func, 'names'):
            raise TypeError(f'{type(self.knn_func).__name__} cannot give back what it indexed: '
                            'take a FaissKNN or CustomKNN of this package.')
        embeddings = self.get_embeddings(query)
        _, rows = self.knn_func(embeddings, k)
        answers = []
        for embedding, found in zip(embeddings, rows, strict=True):
            near = found[found >= 0]
            vectors = self.knn_func.vectors(near).to(embedding.device, embedding.dtype)
            scores = self.match_finder.scores(embedding.expand_as(vectors), vectors)
            results = [self._described(row, score) for row, score in
                       zip(near.tolist(), scores.tolist(), strict=True)
                       if score >= self.match_finder.score_threshold(threshold,
                                                                     self._label(row))]
            answers.append(dict(match=bool(results), results=results))
        return answers

    def _described(self, row: int, score: float) -> dict[str, Any]:
        names = self.knn_func.names
        described = dict(row=row, id=str(row) if names.ids is None else names.ids[row],
                         label=self._label(row), score=score)
        calibration = self.match_finder.calibration
        if calibration is not None:
            described['probability'] = float(calibration.probability(score))
        return described

    def _label(self, row: int) -> int | None:
        labels = self.knn_func.names.labels
        return None if labels is None or labels[row] < 0 else int(labels[row])

    def save_knn_func(self, filename: str | PathLike[str]) -> None:
        """Write the index with its ids and labels to a file."""
        self.knn_func.save(filename)

    def load_knn_func(self, filename: str | PathLike[str]) -> None:
        """Read an index that :meth:`save_knn_func`, or faiss, wrote."""
        self.knn_func.load(filename)

    # Matches -------------------------------------------------------------------------------------

    def get_matches(self, query: Any, ref: Any = None, threshold: float | None = None,
                    return_tuples: bool = False) -> np.ndarray | list[tuple[int, int]]:
        """Which queries match which references; see :meth:`MatchFinder.get_matching_pairs`."""
        queries = self.get_embeddings(query)
        references = queries if ref is None else self.get_embeddings(ref)
        return self.match_finder.get_matching_pairs(queries, references, threshold, return_tuples)

    def is_match(self, x: Any, y: Any, threshold: float | None = None) -> bool | np.ndarray:
        """True where each ``x`` matches the ``y`` beside it; see :meth:`MatchFinder.is_match`."""
        return self.match_finder.is_match(self.get_embeddings(x), self.get_embeddings(y), threshold)

    def match_probability(self, x: Any, y: Any) -> Tensor:
        """The calibrated probability that each ``x`` matches the ``y`` beside it, ``(n,)``."""
        return self.match_finder.match_probability(self.get_embeddings(x), self.get_embeddings(y))

    train_indexer = train_knn  # the names of older releases
    add_to_indexer = add_to_knn
    save_index = save_knn_func
    load_index = load_knn_func


def _number_first(given: Any, batch_size: int) -> tuple[int, Any]:
    """Batch size and device, where an older order has the batch size in the device's place."""
    return (batch_size, given) if given is None else (given, None)


def _match_finder(finder: MatchFinder | None,
                  calibration: MatchCalibration | None) -> MatchFinder:
    if finder is None:
        return MatchFinder(threshold=0.9 if calibration is None else None, calibration=calibration)
    if calibration is not None:
        if getattr(finder, 'calibration', None) not in (None, calibration):
            raise ValueError('The match finder has another calibration already: give one of them.')
        finder.calibration = calibration
    return finder


def _knn_function(knn_func: Any, indexer: Any) -> Any:
    if indexer is not None:
        if knn_func is not None:
            raise ValueError('Give either knn_func or the older indexer, not both.')
        return indexer.knn if isinstance(indexer, FaissIndexer) else IndexerKNN(indexer)
    if knn_func is None:
        return FaissKNN(reset_before=False, reset_after=False)
    if not callable(knn_func):
        raise TypeError('knn_func must be a FaissKNN, a CustomKNN or a callable (query, k, '
                        f'reference, ref_includes_query), got {type(knn_func).__name__}.')
    return knn_func if hasattr(knn_func, 'train') else CallableKNN(knn_func)


def _default_device(*parts: Any) -> torch.device:
    for part in parts:
        if isinstance(part, nn.Module):
            for tensor in [*part.parameters(), *part.buffers()]:
                return tensor.device
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _count(inputs: Any) -> int | None:
    """How many inputs there are, where that is known beforehand."""
    source = inputs.dataset if isinstance(inputs, DataLoader) else inputs
    if isinstance(source, IterableDataset) or not hasattr(source, '__len__'):
        return None
    return len(source)


def _batches(inputs: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """``(batch, labels)``, labels where a dataset gives them.

    Args:
        inputs: a tensor or array whose rows are inputs, a list of tensors or of whatever the model
            takes, or a dataset or dataloader of ``(input, label)`` or of inputs alone.

    Raises:
        TypeError: it is something else.
        ValueError: the tensors of a list differ in shape.
    """
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    if isinstance(inputs, (Tensor, list)):
        for start in range(0, len(inputs), batch_size):
            yield _stacked(inputs[start:start + batch_size]), None
        return
    if isinstance(inputs, Dataset):
        inputs = DataLoader(inputs, batch_size=batch_size)
    if not isinstance(inputs, DataLoader):
        raise TypeError('What is embedded must be a tensor, array, list, dataset or dataloader, '
                        f'got {type(inputs).__name__}.')
    for item in inputs:
        yield (item[0], item[1] if len(item) > 1 else None) if isinstance(item, (tuple, list)) \
            else (item, None)


def _stacked(batch: Any) -> Any:
    if not isinstance(batch, list) or not all(isinstance(item, Tensor) for item in batch):
        return batch
    shapes = {tuple(item.shape) for item in batch}
    if len(shapes) > 1:
        raise ValueError(f'The tensors of a list must have one shape, got {sorted(shapes)[:3]}.')
    return torch.stack(batch)


class _Collected:
    """Embeddings in the order in which they came.

    Args:
        count: how many will come, where that is known: they are then written in place.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.filled = 0
        self.rows: Tensor | None = None
        self.parts: list[Tensor] = []
        self.labels: list[Tensor] | None = []

    def add(self, embeddings: Tensor, labels: Any) -> None:
        """Take a batch ``(n, D)``; labels are kept where every batch has integers."""
        if self.rows is None and self.count:
            self.rows = embeddings.new_empty(self.count, embeddings.shape[1])
        stop = self.filled + len(embeddings)
        if self.rows is not None and stop <= len(self.rows) and not self.parts:
            self.rows[self.filled:stop] = embeddings
            self.filled = stop
        else:  # more embeddings than inputs, as of a model that takes several for one
            self.parts.append(embeddings)
        integers = isinstance(labels, Tensor) and not labels.is_floating_point() and (
            labels.dtype != torch.bool and labels.shape == (len(embeddings),))
        if self.labels is not None and integers:
            self.labels.append(labels.cpu())
        else:
            self.labels = None

    def joined(self) -> tuple[Tensor, Tensor | None]:
        """All embeddings ``(N, D)``, and their labels ``(N,)`` int64 or None.

        Raises:
            ValueError: there is none.
        """
        parts = ([] if self.rows is None else [self.rows[:self.filled]]) + self.parts
        if not parts:
            raise ValueError('There is nothing to embed: the inputs are empty.')
        labels = torch.cat(self.labels).long() if self.labels else None
        return parts[0] if len(parts) == 1 else torch.cat(parts), labels
