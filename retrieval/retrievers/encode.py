"""Encoding a set of images into a gallery, each image once, on any number of processes."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from ..datasets.base import items_of
from ..distributed import all_gather_list, gather_samples, shard
from ..encoders.preprocessor import parts_of_one_size
from ..gallery import Gallery
from ..progress import progress_bar
from ..structures import sample_id_of

_Rows = TypeVar('_Rows', bound=Sequence[int])


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule has the mode that it had before.

    Example:
        >>> layer = nn.Dropout()
        >>> with evaluation_mode(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class _Numbered(Dataset[Any]):
    """A dataset whose items say which row they are."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Any]:
        return row, self.dataset[row]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[int, Any]]:
        return list(zip(rows, items_of(self.dataset, rows), strict=True))


class _CollateNumbered:
    """Collate the items and keep their rows beside the batch."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[int, Any]]) -> tuple[list[int], Any]:
        return [row for row, _ in items], self.collate([item for _, item in items])


def covers_its_dataset(loader: DataLoader[Any]) -> bool:
    """True for a loader that goes through its dataset once, so that the order can be chosen."""
    from mmengine.dataset import DefaultSampler
    return (hasattr(loader.dataset, '__getitem__') and hasattr(loader.dataset, '__len__')
            and type(loader.sampler) in (SequentialSampler, RandomSampler, DefaultSampler)
            and loader.batch_size is not None)


def numbered_batches(loader: DataLoader[Any]) -> Iterable[tuple[list[int] | None, Any]]:
    """Batches with the rows of their items: this process's share of the dataset, in order.

    A loader with a sampler of its own (a subset, say) is gone through as it is, without rows.
    """
    if not covers_its_dataset(loader):
        return ((None, batch) for batch in loader)
    return batches_of_rows(loader, own_share(row_batches(loader)))


def row_batches(loader: DataLoader[Any]) -> list[range]:
    """The rows of a dataset, in order, in batches of the loader's size.

    Which rows stand in a batch together depends on nothing else, so that an embedding comes out
    the same to the last bit whichever process makes it.
    """
    count, size = len(loader.dataset), loader.batch_size or 1  # type: ignore[arg-type]
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def own_share(batches: Sequence[_Rows]) -> list[_Rows]:
    """The batches that fall to this process."""
    return [batches[number] for number in shard(len(batches))]


def batches_of_rows(loader: DataLoader[Any],
                    batches: Sequence[Sequence[int]]) -> Iterable[tuple[list[int], Any]]:
    """These rows of the loader's dataset in these batches, read and collated as the loader does."""
    return DataLoader(
        _Numbered(loader.dataset), batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=loader.num_workers, pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn, collate_fn=_CollateNumbered(loader.collate_fn))


def _rows_of_batch(batch: Any, rows: list[int] | None, start: int) -> list[int]:
    if rows is not None:
        return rows
    samples = batch.get('data_samples') or []
    return [int(sample.get('sample_idx', start + i)) for i, sample in enumerate(samples)] or list(
        range(start, start + len(batch['inputs'])))


class Encoded:
    """The rows of a dataset that one process has encoded so far, and what belongs to each."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.embeddings: list[Tensor] = []
        self.ids: list[str] = []
        self.labels: list[int | None] = []
        self.skipped: dict[str, str] = {}

    def add(self, rows: list[int], embeddings: Tensor, samples: list[Any]) -> None:
        """Take in a batch. Raises ValueError for an embedding that is not finite."""
        embeddings = embeddings.detach().float().cpu()
        ids = [str(sample_id_of(sample, row)) for row, sample in zip(rows, samples, strict=True)]
        bad = (~torch.isfinite(embeddings).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f'The embedding of {ids[bad[0]]!r} is not finite (NaN or infinite), '
                             f'as are {len(bad) - 1} more of its batch: look for a diverged '
                             'training, or for an image that the encoder cannot take.')
        labels = [sample.get('gt_label', None) for sample in samples]
        self.labels += [int(label) if label is not None and label.numel() == 1 else None
                        for label in labels]
        self.rows += rows
        self.embeddings.append(embeddings)
        self.ids += ids


def _drop_unreadable(batch: dict[str, Any], rows: list[int], skipped: dict[str, str]) -> list[int]:
    """Take the images that could not be read out of the batch, and say which they were."""
    samples = batch.get('data_samples')
    if not samples or not any(sample.get('unreadable', None) for sample in samples):
        return rows
    keep = [i for i, sample in enumerate(samples) if not sample.get('unreadable', None)]
    skipped.update({str(sample_id_of(samples[i], rows[i])): samples[i].unreadable
                    for i in range(len(samples)) if i not in set(keep)})
    batch['inputs'] = [batch['inputs'][i] for i in keep]
    batch['data_samples'] = [samples[i] for i in keep]
    return [rows[i] for i in keep]


@torch.no_grad()
def encode(model: Any, loader: DataLoader[Any], progress: Any = None) -> Gallery:
    """Encode what a dataloader gives into a gallery, in the order of the dataset.

    Args:
        model: a retriever; its ``data_preprocessor`` and ``extract_feat`` are used.
        loader: batches ``dict(inputs, data_samples)``. Where it goes through a dataset once, each
            process encodes its share and nothing twice; otherwise samples that several processes
            (or a padding sampler) encoded are kept once, by ``sample_idx``.
        progress: the title of a progress bar on the main process, a bar that is to go on, or
            None.

    Returns:
        The gallery, the same on every process: embeddings, ids, labels where every sample has
        one class, the dataset's label names and metadata, and the images that were skipped.

    Raises:
        ValueError: there is nothing to encode, or an embedding is not finite.

    Example:
        >>> from mmengine.dataset import pseudo_collate
        >>> from retrieval.datasets import ImageList
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> black = torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()
        >>> images = ImageList([black, black + 9], pipeline=[dict(type='PackInputs')])
        >>> model = ImageToImageRetriever(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        >>> encode(model, DataLoader(images, 2, collate_fn=pseudo_collate)).embeddings.tolist()
        [[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]
    """
    collected = Encoded()
    batches = numbered_batches(loader)
    own: Any = getattr(batches, 'batch_sampler', None)  # of a generator, nobody knows
    total = len(loader) * (loader.batch_size or 1) if own is None else sum(map(len, own))
    shown: Any = progress_bar(progress, total) if progress is None or isinstance(progress, str) \
        else nullcontext(progress)
    with evaluation_mode(model), shown as bar:
        for rows, batch in batches:
            here = _rows_of_batch(batch, rows, len(collected.rows))
            encode_batch(model, batch, here, collected)
            bar.update(len(here))
    return _to_gallery(collected, loader.dataset, exact_rows=covers_its_dataset(loader))


def encode_batch(model: Any, batch: dict[str, Any], rows: list[int], into: Encoded) -> None:
    """Encode a batch of these rows of a dataset, without the images that could not be read."""
    rows = _drop_unreadable(batch, rows, into.skipped)
    if not rows:
        return
    for places, part in parts_of_one_size(batch):
        data = model.data_preprocessor(part, False)
        embeddings = model.embed(data['inputs'])
        into.add([rows[place] for place in places], embeddings,
                 data.get('data_samples') or [{} for _ in places])


def _to_gallery(collected: Encoded, dataset: Any, exact_rows: bool) -> Gallery:
    width = max(all_gather_list([e.shape[1] for e in collected.embeddings[:1]]), default=0)
    parts = collected.embeddings or [torch.zeros(0, width)]
    index = torch.tensor(collected.rows, dtype=torch.int64)
    rows, embeddings, ids, labels = gather_samples(
        index, torch.cat(parts), collected.ids, collected.labels)
    skipped = dict(all_gather_list(list(collected.skipped.items())))
    if not len(rows):
        raise ValueError(
            'The prototype is empty: its dataloader gave no image that could be encoded '
            f'({len(skipped)} were skipped as unreadable).')
    known = all(label is not None for label in labels)
    return Gallery(
        embeddings, ids=ids, labels=torch.tensor(labels) if known else None,
        label_names=label_names_of(dataset) if known else None,
        metadata=metadata_of(dataset, rows) if exact_rows else None, skipped=skipped)


def label_names_of(dataset: Any) -> list[str] | None:
    """The names of a dataset's classes, or None."""
    metainfo = getattr(dataset, 'metainfo', None)
    names = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
    return None if names is None else [str(name) for name in names]


def metadata_of(dataset: Any, rows: Tensor) -> dict[str, list[Any]]:
    """The dataset's metadata columns at some rows."""
    columns = getattr(dataset, 'metadata', None)
    if not isinstance(columns, Mapping):
        return {}
    return {name: [values[row] for row in rows.tolist()] for name, values in columns.items()}
