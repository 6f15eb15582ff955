"""Searching an encoded folder with an exported encoder, without torch: in a second, not in five."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..answers import described
from ..encoded_folder import EncodedFolder
from ..exported_encoder import ExportedEncoder
from ..image_files import find_images
from ..image_io import decode_file

_SIMILARITIES = (None, 'cosine_similarity', 'inner_product')
_BATCH = 32


class FolderSearch:
    """Finds, for images from anywhere, the most similar ones of an encoded folder.

    Use :meth:`open`. The answers are those of :class:`retrieval.ImageRetrievalInferencer`, but for
    pixels that differ by a grey value: Pillow makes the images, and not the pipeline.
    """

    def __init__(self, encoder: ExportedEncoder, gallery: EncodedFolder) -> None:
        self.encoder, self.gallery = encoder, gallery
        self.similarity = gallery.similarity or 'cosine_similarity'
        self._rows = self._prepared(gallery.embeddings)
        self._row_of = {name: row for row, name in enumerate(gallery.ids)}

    @classmethod
    def open(cls, folder: str, cache: str | os.PathLike[str],
             export: str | os.PathLike[str]) -> FolderSearch | None:
        """The search, where nothing is to be encoded and Pillow can make the images; else None.

        Args:
            folder: its absolute path.
            cache: the file of what was encoded.
            export: the folder of an exported encoder.

        Raises:
            ValueError, ImportError: the export cannot be run.
        """
        if not os.path.isfile(cache):
            return None
        encoder = ExportedEncoder(export)
        facts = encoder.manifest
        if facts['geometry'] is None or facts['similarity'] not in _SIMILARITIES:
            return None
        gallery = EncodedFolder.open(cache, folder, find_images(folder), facts['fingerprint'],
                                     facts['settings'])
        return None if gallery is None else cls(encoder, gallery)

    def __call__(self, images: Sequence[str], topk: int = 10,
                 on_unreadable: str = 'raise') -> list[dict[str, Any]]:
        """The answers to images, as :meth:`retrieval.ImageRetrievalInferencer.__call__` has them.

        Args:
            images: paths. One that is in the folder does not find itself.
            topk: how many results each gets at the most.
            on_unreadable: ``'raise'``, or ``'skip'`` to report an image that cannot be read.

        Raises:
            UnreadableImageError: an ``OSError``; an image cannot be read.
        """
        answers: dict[int, dict[str, Any]] = {}
        for places, batch in self._batches(images, on_unreadable, answers):
            scores = self._prepared(self.encoder.model(batch)) @ self._rows.T
            if self.similarity == 'cosine_similarity':
                np.clip(scores, -1, 1, out=scores)
            for place, row_scores in zip(places, scores, strict=True):
                rows = self._best(row_scores, self._row_of.get(images[place]), topk)
                answers[place] = described(images[place], rows.tolist(),
                                           row_scores[rows].tolist(), self.gallery)
        return [answers[place] for place in range(len(images))]

    def _batches(self, images: Sequence[str], on_unreadable: str,
                 answers: dict[int, dict[str, Any]]) -> Iterator[tuple[list[int], np.ndarray]]:
        color = self.encoder.pipeline[0].get('color', 'rgb')
        for start in range(0, len(images), _BATCH):
            places, pixels = [], []
            for place in range(start, min(start + _BATCH, len(images))):
                try:
                    image, _ = decode_file(Path(images[place]), color, 255, 'pillow', None)
                except OSError as error:
                    if on_unreadable == 'raise':
                        raise
                    answers[place] = dict(query=images[place], error=str(error))
                    continue
                places.append(place)
                pixels.append(self.encoder.pixels(image))
            if places:
                yield places, np.stack(pixels)

    def _prepared(self, vectors: np.ndarray) -> np.ndarray:
        if self.similarity != 'cosine_similarity':
            return vectors
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)

    def _best(self, scores: np.ndarray, own: int | None, k: int) -> np.ndarray:
        """The rows of the best scores, without the query's own; of equal ones the lower first."""
        scores = scores.copy()
        count = len(scores)
        if own is not None:
            scores[own] = -np.inf
            count -= 1
        k = min(k, count)
        if k < 1:
            return np.zeros(0, np.int64)
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        reached = np.flatnonzero(scores >= bar)
        return reached[np.argsort(-scores[reached], kind='stable')[:k]]
