"""Galleries made of galleries: rows chosen, removed, replaced, and put together."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..registry import unknown_name
from . import columns
from .codec import JoinedVectors
from .fingerprint import Fingerprint, FingerprintError
from .string_column import StringColumn

if TYPE_CHECKING:
    from .gallery import Gallery

_SHOWN = 3


class UnknownIdError(KeyError, ValueError):
    """Ids that a gallery does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])


def some_of(names: Sequence[str]) -> str:
    """A few of the names, for a message."""
    more = f', … ({len(names)} in all)' if len(names) > _SHOWN else ''
    return ', '.join(repr(name) for name in names[:_SHOWN]) + more


def as_names(ids: Iterable[Any]) -> list[str]:
    """Ids as strings. Raises TypeError for one string alone, ValueError where one repeats."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f'ids must be a sequence of ids, got {ids!r}: write [{ids!r}] for one.')
    names = [str(name) for name in ids]
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore
        raise ValueError(f'The id {twice!r} is given more than once.')
    return names


def unknown_ids(names: Sequence[str], held: StringColumn | Sequence[str]) -> UnknownIdError:
    """The error for ids that are not there."""
    example = f' Its ids look like {held[0]!r}.' if len(held) else ''
    return UnknownIdError(f'The gallery does not hold {some_of(names)}; nothing was '
                          f'changed.{example}')


def find(gallery: Gallery, ids: Iterable[Any]) -> np.ndarray:
    """See :meth:`Gallery.find`."""
    names = as_names(ids)
    rows = gallery.ids.find(names)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise unknown_ids([names[place] for place in missing], gallery.ids)
    return rows


def subset(gallery: Gallery, rows: Any) -> Gallery:
    """See :meth:`Gallery.subset`."""
    chosen = _row_numbers(rows, len(gallery))
    if not len(chosen):
        raise ValueError('No row is left, and a gallery cannot be empty.')
    return type(gallery)(
        gallery.vectors.take(chosen),
        ids=gallery.ids.take(chosen) if gallery.identified else None,
        labels=None if gallery.labels is None else columns.take(gallery.labels, chosen),
        label_names=gallery.label_names,
        metadata={name: columns.take(column, chosen) for name, column in gallery.metadata.items()},
        **_facts(gallery))


def _row_numbers(rows: Any, count: int) -> np.ndarray:
    array = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (count,):
            raise ValueError(f'A mask must have one entry for each of {count} rows, got the shape '
                             f'{array.shape}.')
        return np.flatnonzero(array)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in 'iu'):
        raise ValueError('rows must be row numbers (n,) or a mask (N,) of booleans, got '
                         f'{array.dtype} of shape {array.shape}.')
    chosen = array.astype(np.int64)
    if len(chosen) and not -count <= chosen.min() <= chosen.max() < count:
        raise IndexError(f'The gallery has {count} rows; the rows asked for go from '
                         f'{chosen.min()} to {chosen.max()}.')
    chosen = np.where(chosen < 0, chosen + count, chosen)
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError('A row is asked for twice, and an id stands for one row.')
    return chosen


def _facts(gallery: Gallery) -> dict[str, Any]:
    return dict(fingerprint=gallery.fingerprint, source=gallery.source, skipped=gallery.skipped,
                similarity=gallery.similarity)


def _named_column(gallery: Gallery, name: str) -> columns.Column | list[str]:
    """The column of that name; ``id``, and ``label`` by the names of the classes."""
    if name in gallery.metadata:
        return gallery.metadata[name]
    if name == 'id':
        return gallery.ids
    if name == 'label' and gallery.labels is not None:
        if gallery.label_names is None:
            return gallery.labels
        return columns.string_column(_label_texts(gallery))
    valid = [*gallery.metadata, 'id', *(['label'] if gallery.labels is not None else [])]
    raise ValueError(unknown_name('column of the gallery', name, valid))


def _label_texts(gallery: Gallery) -> Iterator[str]:
    assert gallery.labels is not None and gallery.label_names is not None
    names = gallery.label_names
    return (names[label] if 0 <= label < len(names) else str(label)
            for label in gallery.labels.tolist())


def filtered(gallery: Gallery, keep: Any, wanted: Mapping[str, Any]) -> Gallery:
    """See :meth:`Gallery.filter`."""
    mask = np.ones(len(gallery), dtype=bool)
    for name, values in wanted.items():
        try:
            mask &= columns.equal_to(_named_column(gallery, name), values)  # type: ignore
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
    if callable(keep):
        keep = np.fromiter((bool(keep(_description(gallery, row))) for row in range(len(gallery))),
                           dtype=bool, count=len(gallery))
    if keep is not None:
        given = np.asarray(keep)
        if given.dtype != bool or given.shape != mask.shape:
            raise ValueError(f'keep must be a function or a mask ({len(gallery)},) of booleans, '
                             f'got {given.dtype} of shape {given.shape}.')
        mask &= given
    return subset(gallery, mask)


def _description(gallery: Gallery, row: int) -> dict[str, Any]:
    return dict(gallery.describe(row), id=gallery.ids[row], label=gallery.label_name(row))


def split(gallery: Gallery, by: Any) -> dict[Any, Gallery]:
    """See :meth:`Gallery.split`."""
    values = _named_column(gallery, by) if isinstance(by, str) else by
    listed = values.tolist() if isinstance(values, (Tensor, np.ndarray)) else list(values)
    if len(listed) != len(gallery):
        raise ValueError(f'There are {len(listed)} values to split {len(gallery)} rows by: give '
                         'one for each row.')
    rows: dict[Any, list[int]] = {}
    for row, value in enumerate(listed):
        rows.setdefault(value, []).append(row)
    return {value: subset(gallery, of_it) for value, of_it in rows.items()}


def remove(gallery: Gallery, ids: Iterable[Any]) -> Gallery:
    """See :meth:`Gallery.remove`."""
    check_identified([gallery])
    stay = np.ones(len(gallery), dtype=bool)
    stay[find(gallery, ids)] = False
    return subset(gallery, stay)


def update(gallery: Gallery, other: Gallery) -> Gallery:
    """See :meth:`Gallery.update`."""
    check_identified([gallery, other])
    rows = find(gallery, other.ids)
    fingerprint, similarity = agreed([gallery, other])
    labels, names = joined_labels([gallery, other])
    # of the rows of both after one another, those of `other` in the places of the replaced ones
    place = np.arange(len(gallery))
    place[rows] = len(gallery) + np.arange(len(other))
    parts: list = [(gallery.vectors, None), (other.vectors, None)]
    both = {name: columns.joined(values, name)
            for name, values in joined_metadata([gallery, other]).items()}
    facts = dict(_facts(gallery), fingerprint=fingerprint, similarity=similarity)
    return type(gallery)(
        JoinedVectors(parts).take(place), gallery.ids,
        None if labels is None else columns.take(labels, place), names,
        {name: columns.take(column, place) for name, column in both.items()}, **facts)


def merge(galleries: Sequence[Gallery]) -> Gallery:
    """See :meth:`Gallery.merge`."""
    galleries = list(galleries)
    if not galleries:
        raise ValueError('There is no gallery to merge: give at least one.')
    fingerprint, similarity = agreed(galleries)
    first = galleries[0]
    identified = {gallery.identified for gallery in galleries}
    if len(identified) == 2:
        raise ValueError('Some of the galleries have ids and some have not: give all rows ids.')
    labels, names = joined_labels(galleries)
    ids = StringColumn.joined([gallery.ids for gallery in galleries]) if first.identified else None
    joined = JoinedVectors([(gallery.vectors, None) for gallery in galleries])
    skipped = {name: why for gallery in galleries for name, why in gallery.skipped.items()}
    return type(first)(
        joined, ids, labels, names,
        {name: columns.joined(parts, name) for name, parts in joined_metadata(galleries).items()},
        fingerprint, first.source, skipped, similarity)


def check_identified(galleries: Sequence[Gallery]) -> None:
    """Raises ValueError where a gallery's rows have no ids."""
    if not all(gallery.identified for gallery in galleries):
        raise ValueError('The gallery has no ids, so that a row cannot be named: give '
                         'Gallery(embeddings, ids=…), or choose rows by number with subset.')


def agreed(galleries: Sequence[Gallery]) -> tuple[Fingerprint, str | None]:
    """The fingerprint and similarity of rows that are put together.

    What one gallery does not know is taken from another.

    Raises:
        FingerprintError: a ``ValueError``; they were made by different models or pipelines.
        ValueError: they have different widths or similarities.
    """
    fingerprint, similarity = galleries[0].fingerprint, galleries[0].similarity
    for other in galleries[1:]:
        if other.dim != galleries[0].dim:
            raise ValueError(f'One gallery has embeddings of width {galleries[0].dim} and another '
                             f'of width {other.dim}: both must come from one encoder.')
        different = fingerprint.differences(other.fingerprint)
        if different:
            raise FingerprintError(
                f'The galleries were made by different models or pipelines: '
                f'{" and ".join(different)} differ, so their embeddings cannot stand in one '
                'gallery. Encode all images with one model.')
        if similarity and other.similarity and similarity != other.similarity:
            raise ValueError(f'One gallery is meant for {similarity} and another for '
                             f'{other.similarity}.')
        fingerprint = fingerprint.completed(other.fingerprint)
        similarity = similarity or other.similarity
    return fingerprint, similarity


def joined_labels(galleries: Sequence[Gallery]) -> tuple[Tensor | None, list[str] | None]:
    """The labels of all rows, and their names: those of the first gallery, then new ones.

    Raises:
        ValueError: some galleries have no labels, or no names of them.
    """
    labels, names = [g.labels for g in galleries], [g.label_names for g in galleries]
    for what, given in (('labels', labels), ('label names', names)):
        if any(value is None for value in given) and any(value is not None for value in given):
            raise ValueError(f'Some of the galleries have {what} and some have not: give all of '
                             'them, or none.')
    if labels[0] is None or names[0] is None:
        joined = None if labels[0] is None else torch.cat([part.cpu() for part in labels])  # type: ignore
        return joined, names[0]
    every = list(names[0])
    number: dict[str, int] = {}
    for label, name in enumerate(every):
        number.setdefault(name, label)
    parts = []
    for place, (own, texts) in enumerate(zip(labels, names, strict=True)):
        for name in texts or ():
            if name not in number:
                number[name] = len(every)
                every.append(name)
        new = range(len(every)) if place == 0 else [number[name] for name in texts or ()]
        parts.append(torch.from_numpy(_renumbered(own.cpu().numpy(), new)))  # type: ignore
    return torch.cat(parts), every


def _renumbered(labels: np.ndarray, number: Sequence[int]) -> np.ndarray:
    if len(labels) and not 0 <= labels.min() <= labels.max() < max(len(number), 1):
        raise ValueError(f'A label goes from {labels.min()} to {labels.max()}, and there are '
                         f'{len(number)} label names: give each class a name.')
    return np.array(number, dtype=np.int64)[labels]


def joined_metadata(galleries: Sequence[Gallery]) -> dict[str, list[columns.Column]]:
    """The metadata columns of all galleries by name. Raises ValueError where they differ."""
    names = set(galleries[0].metadata)
    for other in galleries[1:]:
        if set(other.metadata) != names:
            differing = sorted(names ^ set(other.metadata))
            raise ValueError('The galleries have different metadata columns: '
                             f'{some_of(differing)} stand only in one. Give all the same columns.')
    return {name: [gallery.metadata[name] for gallery in galleries]
            for name in galleries[0].metadata}
