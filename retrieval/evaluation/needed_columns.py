"""The columns that a config's evaluation needs, and whether its datasets keep them."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..registry import DATASETS
from .protocols import resolve_protocol


def check_columns(evaluator: Any, queries: Any, gallery: Any = None) -> None:
    """Refuse an evaluation that leaves out rows by a column which a dataset does not keep.

    Only names are compared, so that it is seen before anything is read or encoded. What is no
    config, and a dataset that does not say what it keeps, is passed over.

    Args:
        evaluator: the config of an evaluator, of a metric, or a list of them.
        queries, gallery: the configs of their dataloaders.

    Raises:
        ValueError: a dataset does not keep such a column; the message says what to write.

    Example:
        >>> queries = dict(dataset=dict(type='CSVDataset', metadata_keys=['camera']))
        >>> check_columns(dict(type='EmbeddingMetrics', exclude_same='camera'), queries)
    """
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        if not isinstance(metric, Mapping):
            continue
        if isinstance(metric.get('metrics'), (list, tuple)):  # of an evaluator around metrics
            check_columns([one for one in metric['metrics'] if isinstance(one, Mapping)], queries,
                          gallery)
        same = metric.get('exclude_same') or ()
        fields = columns = (same,) if isinstance(same, str) else tuple(same)
        if metric.get('protocol') is not None:
            protocol = resolve_protocol(metric['protocol'])
            fields, columns = protocol.sample_fields, protocol.exclude_same
        for names, loader, side, packed in ((fields, queries, 'queries', True),
                                            (columns, gallery, 'gallery', False)):
            for dataset in _leaves(loader):
                kept = _kept(dataset, packed)
                for name in names:
                    if kept is not None and name not in kept:
                        raise ValueError(
                            f'The evaluation needs the column {name!r}, which the dataset of the '
                            f'{side}, {_type(dataset)}, does not keep (it keeps '
                            f'{", ".join(map(repr, sorted(kept))) or "none"}): name it in '
                            f'metadata_keys=[{name!r}] of the dataset.')


def _type(dataset: Mapping[str, Any]) -> str:
    given = dataset.get('type')
    return given if isinstance(given, str) else getattr(given, '__name__', str(given))


def _leaves(loader: Any) -> Iterator[Mapping[str, Any]]:
    """The configs of the datasets in a dataloader's config, below the wrappers around them."""
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    inner = [dataset]
    while inner:
        one = inner.pop()
        if not isinstance(one, Mapping):
            continue
        parts = one.get('datasets') or [one.get('dataset')]
        if any(isinstance(part, Mapping) for part in parts):
            inner += parts
        else:
            yield one


def _kept(dataset: Mapping[str, Any], packed: bool) -> set[str] | None:
    """The columns that a dataset keeps, with what its pipeline packs; None where unknown."""
    given = dataset.get('type')
    cls: Any = DATASETS.get(given) if isinstance(given, str) else given
    if not hasattr(cls, 'metadata_keys'):
        return None
    named = dataset.get('metadata_keys') or ()
    steps = [step for step in dataset.get('pipeline') or () if isinstance(step, Mapping)]
    packs = [name for step in steps for name in step.get('meta_keys') or ()] if packed else []
    return {*cls.metadata_keys, *((named,) if isinstance(named, str) else named), *packs}
