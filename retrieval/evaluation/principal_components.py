"""How many of their dimensions embeddings use."""
from __future__ import annotations

import torch

from .metrics import metric
from .task import EvaluationTask

_ROWS = 8192


@metric('PCF@K', depth=None)
def principal_component_fraction(task: EvaluationTask, k: int) -> float:
    """The fewest principal components that together hold k percent of the variance, over the
    embeddings' width: small where embeddings have collapsed.

    The principal components fraction (PCF) of Open Metric Learning, over the embeddings of queries
    and gallery as they are given. 0 where all are equal.

    Raises:
        ValueError: k is above 100.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [2., .1], [3., 0.]], [7, 7, 8]))
        >>> principal_component_fraction(task, 90), principal_component_fraction(task, 100)
        (0.5, 1.0)
    """
    if k > 100:
        raise ValueError(f'PCF@{k}: K is a percentage of the variance, at most 100.')
    rows = task.query_vectors
    if task.gallery is not None:
        rows = torch.cat([rows, task.gallery_vectors.to(rows.device)])
    mean = rows.mean(dim=0, dtype=torch.float64)
    scatter = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.split(_ROWS):
        apart = part.double() - mean
        scatter += apart.T @ apart
    variances = torch.linalg.eigvalsh(scatter).flip(0).clamp(min=0)
    if not float(variances.sum()):
        return 0.0
    shares = variances.cumsum(0) / variances.sum()
    return (int((shares < k / 100 - 1e-12).sum()) + 1) / rows.shape[1]
