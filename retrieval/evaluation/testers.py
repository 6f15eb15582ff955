"""Ways to split one evaluation into several: by split, parent label, level of a hierarchy.

The counterparts of pytorch-metric-learning's testers, as functions. Two streams (queries through
one encoder, the gallery through another) are :func:`~retrieval.evaluation.evaluate` with a gallery,
whose ids say which rows are a query's own.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..ranking import as_vectors
from ..registry import unknown_name
from ..structures import as_labels
from .functional import evaluate
from .relations import check_length

Result = dict[str, float]


def evaluate_splits(splits: Mapping[str, tuple[Any, Any]],
                    pairs: Sequence[tuple[str, Sequence[str]]] | None = None,
                    **options: Any) -> dict[str, Result]:
    """Every split by itself, or against the splits that are named for it, joined.

    Args:
        splits: name to ``(embeddings (N, D), labels (N,))``.
        pairs: queries' split and the splits of its gallery, for example
            ``[('val', ['train', 'val'])]``; the default is each split alone. Where the queries'
            split is in the gallery, a query does not rank itself.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        Its result by the name of each query split.

    Raises:
        ValueError: a split is not there, or as in :func:`evaluate`.
    """
    results = {}
    for name, against in pairs or [(name, [name]) for name in splits]:
        for one in (name, *against):
            if one not in splits:
                raise ValueError(unknown_name('split', one, splits))
        queries, labels = splits[name]
        if list(against) == [name]:
            results[name] = evaluate(queries, labels, **options)
            continue
        gallery = torch.cat([as_vectors(splits[one][0], one) for one in against])
        theirs = torch.cat([as_labels(splits[one][1], f'labels of {one}') for one in against])
        ids = [f'{one} {row}' for one in against for row in range(len(splits[one][0]))]
        results[name] = evaluate(queries, labels, gallery, theirs, gallery_ids=ids,
                                 ids=[f'{name} {row}' for row in range(len(queries))], **options)
    return results


def evaluate_within_parents(embeddings: Any, labels: Any, parents: Any,
                            **options: Any) -> Result:
    """Leave-one-out among the rows of the same parent label only, averaged over the parents.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N,)`` whole numbers.
        parents: ``(N,)`` whole numbers, such as super-classes.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        The mean over parents in percent, and the sums of ``num_queries`` and
        ``num_skipped_queries``. Parents within which no query has a relevant row are left out of
        the means; their queries are counted as skipped.

    Raises:
        ValueError: no parent has such a query, or as in :func:`evaluate`.
    """
    vectors = as_vectors(embeddings, 'embeddings')
    numbers, groups = as_labels(labels, 'labels'), as_labels(parents, 'parents')
    check_length('labels', numbers, len(vectors), 'embeddings')
    check_length('parents', groups, len(vectors), 'embeddings')
    results, skipped = [], 0
    for parent in torch.unique(groups):
        rows = (groups == parent).nonzero()[:, 0]
        of_class = torch.unique(numbers[rows], return_counts=True)[1]
        if bool((of_class > 1).any()):
            results.append(evaluate(vectors[rows], numbers[rows], **options))
        else:
            skipped += len(rows)
    if not results:
        raise ValueError('Within no parent label has a query a relevant row to find.')
    means = {name: sum(result[name] for result in results) / len(results) for name in results[0]}
    return {**means, 'num_queries': len(vectors), 'num_skipped_queries': skipped + int(
        sum(result['num_skipped_queries'] for result in results))}


def evaluate_levels(embeddings: Any, labels: Any, names: Sequence[str] | None = None,
                    **options: Any) -> dict[str, Result]:
    """Leave-one-out by every level of a label hierarchy.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N, L)`` whole numbers, a column a level.
        names: of the levels; the default is ``level0`` and so on.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        Its result by the name of each level.

    Raises:
        ValueError: labels are not two-dimensional, there is not a name for each level, or as in
            :func:`evaluate`.
    """
    table = torch.as_tensor(labels)
    if table.ndim != 2:
        raise ValueError(f'Labels of a hierarchy must be (N, L), got {tuple(table.shape)}.')
    levels = [f'level{level}' for level in range(table.shape[1])] if names is None else list(names)
    if len(levels) != table.shape[1]:
        raise ValueError(f'There are {len(levels)} names for {table.shape[1]} levels.')
    return {name: evaluate(embeddings, table[:, level], **options)
            for level, name in enumerate(levels)}
