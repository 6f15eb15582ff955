"""Altered pictures of a gallery: matches that nobody has to label."""
from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from ..datasets.base import build_pipeline
from ..gallery import Gallery
from ..retrievers import encode

#: A part of at least half of the area, mirrored or not, turned and coloured a little.
ALTERATIONS: list[dict[str, Any]] = [
    dict(type='retrieval.RandomResizedCrop', scale=256, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='retrieval.RandomAffine', degrees=10, border='reflect'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05)]


def encode_altered(model: Any, dataset: Any, count: int = 1000, seed: int = 0,
                   progress: str | None = None) -> Gallery:
    """Some pictures of a dataset, altered (:data:`ALTERATIONS`) and encoded.

    Args:
        model: a retriever.
        dataset: a :class:`retrieval.datasets.RetrievalDataset`.
        count: so many pictures are drawn, at the most.
        seed: of the drawing and of the alterations.
        progress: the title of a bar, where somebody watches.

    Returns:
        A gallery with the ids of the originals; pictures that cannot be read are in ``skipped``.

    Example:
        >>> import torch
        >>> from retrieval.datasets import ImageList
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> greys = [np.full((9, 9, 3), grey, np.uint8) for grey in (0, 100, 200)]
        >>> pictures = ImageList(greys, pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
        >>> encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> tuple(encode_altered(ImageToImageRetriever(encoder), pictures, 2).embeddings.shape)
        (2, 3)
    """
    rows = np.random.default_rng(seed).permutation(len(dataset))[:count]
    some = dataset.get_subset(np.sort(rows).tolist())
    steps = list(some.pipeline_cfg)
    begin = 1 if steps and 'Load' in str(steps[0].get('type')) else 0
    some.pipeline = build_pipeline([*steps[:begin], *ALTERATIONS, *steps[begin:]])
    some.set_seed(seed)
    loader: DataLoader[Any] = DataLoader(some, batch_size=16, collate_fn=pseudo_collate)
    return encode(model, loader, progress)
