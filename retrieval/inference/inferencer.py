"""Searching a gallery with images from anywhere."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from ..datasets import ImageList, find_images
from ..gallery import hash_settings
from ..retrievers import BaseRetriever, evaluation_mode
from ..structures import RetrievalDataSample, sample_id_of


class ImageRetrievalInferencer:
    """Finds, for images given as paths or arrays, the most similar rows of a retriever's gallery.

    Args:
        model: the retriever; its prototype is what is searched.
        pipeline: config of the test pipeline, which ends in ``PackInputs``.
        batch_size: images encoded at once.
        num_workers: processes that read images.

    Raises:
        TypeError: the model is no retriever.
        ValueError: the pipeline is empty.
    """

    def __init__(self, model: Any, pipeline: Sequence[dict], batch_size: int = 32,
                 num_workers: int = 0) -> None:
        if not isinstance(model, BaseRetriever):
            raise TypeError(f'The inferencer wants a retriever, got {type(model).__name__}.')
        if not pipeline:
            raise ValueError('The inferencer wants the test pipeline: a list that begins with '
                             "dict(type='LoadImage') and ends with dict(type='PackInputs').")
        self.model: Any = model
        self.pipeline = list(pipeline)
        self.batch_size = batch_size
        self.num_workers = num_workers

    def __call__(self, images: Any, topk: int | None = None,
                 on_unreadable: str = 'raise') -> list[dict[str, Any]]:
        """Search.

        Args:
            images: a path or an array ``(H, W, C)`` uint8, or a list of them.
            topk: how many results each gets at the most; the retriever's own number when None.
            on_unreadable: ``'raise'``, or ``'skip'`` to report an image that cannot be read.

        Returns:
            For each image a dict with ``query`` and ``results``, a list, best first, of dicts with
            ``rank`` from 1, ``score``, ``row``, ``id``, ``label``, and the gallery's metadata;
            for one that cannot be read ``query`` and ``error``.
        """
        if topk is not None and topk < 1:
            raise ValueError(f'topk must be at least 1, got {topk}.')
        samples = self.samples(images, on_unreadable)
        return [self.answer(sample, topk) for sample in samples]

    @torch.no_grad()
    def samples(self, images: Any, on_unreadable: str = 'raise') -> list[RetrievalDataSample]:
        """The data samples of images, filled by the retriever; see :meth:`__call__`."""
        images = list(images) if isinstance(images, (list, tuple)) else [images]
        dataset = ImageList(images, pipeline=self.pipeline, on_unreadable=on_unreadable)
        loader: DataLoader = DataLoader(
            dataset, batch_size=self.batch_size, num_workers=self.num_workers,
            collate_fn=pseudo_collate)
        self.model.query_pipeline = hash_settings(dataset.pipeline_cfg)
        answered: list[RetrievalDataSample] = []
        with evaluation_mode(self.model):
            for batch in loader:
                readable = [i for i, sample in enumerate(batch['data_samples'])
                            if not sample.get('unreadable', None)]
                if readable:
                    self.model.test_step({key: [batch[key][i] for i in readable]
                                          for key in ('inputs', 'data_samples')})
                answered += batch['data_samples']
        return answered

    def answer(self, sample: Any, topk: int | None) -> dict[str, Any]:
        """What :meth:`__call__` returns for one of :meth:`samples`."""
        name = sample_id_of(sample)
        if sample.get('unreadable', None):
            return dict(query=name, error=sample.unreadable)
        gallery = self.model.gallery
        found = zip(sample.pred_label.tolist()[:topk], sample.pred_score.tolist(), strict=False)
        return dict(query=name, results=[
            dict(rank=rank, score=round(score, 6), row=row, id=gallery.ids[row],
                 label=gallery.label_name(row), **gallery.describe(row))
            for rank, (row, score) in enumerate(found, 1)])


def expand(paths: Sequence[str]) -> list[str]:
    """Image files as they are, and the images below folders, sorted.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a folder holds no image.
    """
    images: list[str] = []
    for path in map(str, paths):
        if Path(path).is_file():
            images.append(path)
            continue
        found = find_images(path)
        if not found:
            raise ValueError(f'The folder {path!r} holds no image.')
        images += found
    return images
