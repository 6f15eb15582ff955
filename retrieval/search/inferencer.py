"""Searching a gallery with images from anywhere."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import DataLoader

from ..answers import described, draw
from ..checks import whole_number
from ..datasets import ImageList, RetrievalDataset
from ..encoders.preprocessor import parts_of_one_size
from ..evaluation import MatchCalibration
from ..gallery import Gallery
from ..progress import progress_bar
from ..ranking.range_search import checked_threshold
from ..retrievers import CacheReport, cached_gallery, encode, evaluation_mode, pipeline_of
from ..retrievers.build import as_retriever
from ..structures import RetrievalDataSample, sample_id_of
from .composed import QueryPart, name_of, sum_of
from .prototypes import as_dataset, holds_vectors, is_pipeline


class ImageRetrievalInferencer:
    """Finds, for images from anywhere, the most similar ones of a gallery.

    ``ImageRetrievalInferencer(model, pipeline)``, as older code calls it, searches the model's own
    prototype.

    Args:
        model: a retriever, whose prototype this one replaces; an encoder; the path of a config or
            a config; or None for the default pretrained encoder.
        prototype: what is searched: a folder, a list of images (paths, arrays, Pillow images), a
            dataset or dataloader or the config of one, a gallery (an object or a file), a saved
            tensor, a tensor ``(N, D)``, or an index; None for the model's own prototype.
        prototype_cache: a file in which the encoded images are kept. Where it is there, was made
            by the same model and pipeline, and an image has not changed since, its row is taken
            from the file; only the other images are encoded, and the file is renewed.
        pipeline: config of the test pipeline, which ends in ``PackInputs``; by default that of
            the config, of the default encoder, or of the prototype's dataset.
        batch_size: images encoded at once.
        num_workers: processes that read images.
        checkpoint: the weights of a config's model.
        calibration: a :class:`MatchCalibration` or its file: results get a ``probability``, and
            those below its threshold are left out.
        topk: results that an image gets; the retriever's own number when None.
        device: where the model goes; by default it stays where it is.
        on_unreadable: ``'raise'``, or ``'skip'`` to leave images of the prototype out, which are
            then in ``model.gallery.skipped``.
        compare: what of a file shows that it changed: ``'stat'`` (size and time) or ``'content'``.
        progress: show progress bars, where somebody watches.

    Attributes:
        cache_report: what was taken from the cache and what was encoded, or None.

    Raises:
        TypeError, ValueError, FileNotFoundError: an argument is wrong; the message says which.

    Example:
        >>> from torch import nn
        >>> grey = [np.full((4, 4, 3), value, np.uint8) for value in (0, 100, 200)]
        >>> colour = np.array([[[200, 0, 0]]], np.uint8)
        >>> inferencer = ImageRetrievalInferencer(
        ...     nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), [*grey, colour],
        ...     pipeline=[dict(type='PackInputs')])
        >>> inferencer(colour + 9)[0]['results'][0]['row']
        3
    """

    def __init__(self, model: Any = None, prototype: Any = None,
                 prototype_cache: str | os.PathLike[str] | None = None, batch_size: int = 32,
                 num_workers: int = 0, *, pipeline: Sequence[dict[str, Any]] | None = None,
                 checkpoint: str | os.PathLike[str] | None = None,
                 calibration: MatchCalibration | str | os.PathLike[str] | None = None,
                 topk: int | None = None, device: Any = None, on_unreadable: str = 'raise',
                 compare: str = 'stat', progress: bool = True) -> None:
        if pipeline is None and is_pipeline(prototype):
            pipeline, prototype = prototype, None
        self.model, configured = as_retriever(model, checkpoint, device)
        self.batch_size, self.num_workers, self.progress = batch_size, num_workers, progress
        self.cache_report: CacheReport | None = None
        self.gallery_dataset: Any = None
        self.topk = None if topk is None else whole_number('topk', topk)
        self.pipeline = self._query_pipeline(pipeline, configured, prototype)
        if prototype is not None:
            self._search_in(prototype, prototype_cache, on_unreadable, compare)
        elif prototype_cache is not None:
            raise ValueError('prototype_cache keeps an encoded prototype: give the prototype with '
                             'it.')
        elif getattr(self.model, 'prototype', None) is None:
            raise ValueError('The model has no prototype of its own: give what is to be searched, '
                             'such as a folder of images, as prototype=.')
        else:
            self.model.search_in(pipeline=self.pipeline)
        self.calibration = _as_calibration(calibration, self.model)

    def _query_pipeline(self, given: Sequence[dict[str, Any]] | None,
                        configured: list[dict[str, Any]] | None,
                        prototype: Any) -> list[dict[str, Any]]:
        candidates = [given, configured]
        for source in (prototype, getattr(self.model, 'prototype', None)):
            source = source.dataset if isinstance(source, DataLoader) else source
            candidates.append(pipeline_of(source) if not isinstance(source, dict) else
                              dict(source.get('dataset', source)).get('pipeline'))
        found = next((pipeline for pipeline in candidates if pipeline), None)
        if given is not None and not given or not found:
            raise ValueError('The inferencer wants the test pipeline: a list that begins with '
                             "dict(type='LoadImage') and ends with dict(type='PackInputs').")
        return list(found)

    # The prototype -------------------------------------------------------------------------------

    def _search_in(self, prototype: Any, cache: str | os.PathLike[str] | None, on_unreadable: str,
                   compare: str) -> None:
        """Make the prototype what the model searches."""
        if holds_vectors(prototype):
            if cache is not None:
                raise ValueError('prototype_cache keeps encoded images, and this prototype is '
                                 'encoded already: leave one of them out.')
            if isinstance(prototype, np.ndarray):
                prototype = torch.from_numpy(prototype)
            self.model.search_in(prototype, self.pipeline)
            self.model.prepare_prototype()
            return
        dataset = as_dataset(prototype, self.pipeline, on_unreadable)
        loader: DataLoader[Any] = DataLoader(dataset, batch_size=self.batch_size,
                                        num_workers=self.num_workers, collate_fn=pseudo_collate)
        title = 'Encoding the prototype' if self.progress else None
        if cache is None:
            gallery = encode(self.model, loader, title)
            gallery.fingerprint = self.model.fingerprint(dataset)
        else:
            if not isinstance(dataset, RetrievalDataset):
                raise TypeError('prototype_cache wants a dataset of this package, whose images '
                                f'have identities; {type(dataset).__name__} has none that can '
                                'be compared.')
            is_path = isinstance(prototype, (str, os.PathLike))
            root = os.path.normpath(prototype) if is_path else None
            gallery, self.cache_report = cached_gallery(self.model, loader, cache, compare, root,
                                                        progress=title)
        self.gallery_dataset = dataset
        # Without a pipeline to compare: a prototype's dataset may have one of its own.
        self.model.search_in(gallery, dataset=dataset)
        self.model.prepare_prototype()

    # Searching -----------------------------------------------------------------------------------

    def __call__(self, images: Any, topk: int | None = None, on_unreadable: str = 'raise',
                 threshold: float | None = None,
                 draw_dir: str | os.PathLike[str] | None = None,
                 filter: Any = None) -> list[dict[str, Any]]:
        """Search.

        Args:
            images: a path, an array ``(H, W, C)`` uint8 or a Pillow image, or a list of them; a
                folder stands for the images in it.
            topk: how many results each gets at the most; the retriever's own number when None.
            on_unreadable: ``'raise'``, or ``'skip'`` to report an image that cannot be read.
            threshold: leave results with a lower score out, in place of the calibration's
                threshold.
            draw_dir: a folder for a picture of each query and its results.
            filter: which rows may be found, a text such as ``'price<20'``
                (:mod:`retrieval.gallery.filters`) or a mask ``(N,)`` bool.

        Returns:
            For each image a dict with ``query`` and ``results``, a list, best first, of dicts with
            ``rank`` from 1, ``score``, ``row``, ``id``, ``label``, ``path`` (None where the id is
            no file) and ``metadata``; with a calibration ``probability`` too; behind a reranker
            that compares pictures ``box``, the part of the result in which the query was found, as
            left, top, width and height in shares of it, or None, with ``query_box``, the part of
            the query that is in the result, ``inliers`` and ``mirrored``. With a calibration
            or a threshold the dict also holds ``match``: False, and no result, where nothing
            reaches it. With ``draw_dir`` there is ``picture``, the file. For an image that cannot
            be read there are ``query`` and ``error``.

        Raises:
            ValueError: ``topk`` is below 1, or no similarity reaches the threshold.
            OSError: an image cannot be read.
        """
        topk = self.topk if topk is None else whole_number('topk', topk)
        if topk is None and self.calibration is not None and self.model.topk != -1:
            topk = self.model.topk
        self._check_threshold(threshold)
        dataset, samples = self._searched(images, on_unreadable, topk, filter)
        found = [self.answer(sample, topk, threshold) for sample in samples]
        if draw_dir is not None:
            draw(found, [dataset, self.gallery_dataset], draw_dir, self.model.gallery.ids)
        return found

    def samples(self, images: Any, on_unreadable: str = 'raise') -> list[RetrievalDataSample]:
        """The data samples of images, filled by the retriever; see :meth:`__call__`."""
        return self._searched(images, on_unreadable, self.topk)[1]

    def composed(self, *queries: Sequence[QueryPart | Mapping[str, Any]], topk: int | None = None,
                 threshold: float | None = None, filter: Any = None) -> list[dict[str, Any]]:
        """Search for words, and for words and pictures together.

        The encoder must have a text tower for words. A picture of the gallery that is part of a
        query is not among its results. Where words are in it the calibration, which is of
        pictures, does not count.

        Args:
            queries: each a list of its parts, dicts with ``text`` or ``image`` and, where it is
                not 1, ``weight``: below 0 for what is not wanted. See :class:`QueryPart`.
            topk, threshold, filter: as of :meth:`__call__`.

        Returns:
            As :meth:`__call__`; ``query`` is the query in words, ``picture_of`` its first picture
            where it has a file among several parts.

        Raises:
            ValueError: a query has no parts or these take each other away, or the encoder has no
                text tower.
            OSError: a picture cannot be read.

        Example:
            >>> from torch import nn
            >>> grey = [np.full((4, 4, 3), value, np.uint8) for value in (0, 100, 200)]
            >>> colour = np.array([[[200, 0, 0]]], np.uint8)
            >>> inferencer = ImageRetrievalInferencer(
            ...     nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), [*grey, colour],
            ...     pipeline=[dict(type='PackInputs')], progress=False)
            >>> parts = [dict(image=colour + 9), dict(image=grey[1] + 1, weight=-.5)]
            >>> inferencer.composed(parts)[0]['results'][0]['row']
            3
        """
        topk = self.topk if topk is None else whole_number('topk', topk)
        self._check_threshold(threshold)
        wholes = [list(map(QueryPart.of, parts)) for parts in queries]
        if not all(wholes):
            raise ValueError('A query without parts was given: each has words or a picture.')
        return [self._composed(parts, topk, threshold, filter) for parts in wholes]

    @torch.no_grad()
    def _composed(self, parts: list[QueryPart], topk: int | None, threshold: float | None,
                  filter: Any) -> dict[str, Any]:
        gallery = self.model.gallery
        texts = [part.text for part in parts if part.text is not None]
        pictures, own = self._embedded([part.image for part in parts if part.text is None])
        with evaluation_mode(self.model):
            words = iter(self.model.embed_words(texts).float() if texts else ())
        query = sum_of(parts, torch.stack([
            next(pictures if part.text is None else words) for part in parts]))
        wanted = self.model.topk if topk is None else topk
        calibration = None if texts else self.calibration
        depth = 0 if calibration is None else calibration.depth
        sample, = self.model.search(query[None], None, wanted if wanted == -1 else
                                    max(wanted, depth) + len(own), filter)
        results = [(row, score) for row, score in zip(
            sample.pred_label.tolist(), sample.pred_score.tolist(), strict=True)
            if gallery.ids[row] not in own]
        if calibration is not None:
            calibration = calibration.of_query([score for _, score in results])
        results = results if wanted == -1 else results[:wanted]
        answer = described(name_of(parts), [row for row, _ in results],
                           [score for _, score in results], gallery,
                           calibration, threshold)
        files = [os.fspath(part.image) for part in parts
                 if isinstance(part.image, (str, os.PathLike))]
        return answer | (dict(picture_of=files[0]) if files and len(parts) > 1 else {})

    def _embedded(self, pictures: list[Any]) -> tuple[Iterator[Tensor], set[str]]:
        """The embeddings ``(D,)`` of pictures, in turn, and their ids."""
        if not pictures:
            return iter(()), set()
        dataset = ImageList(pictures, pipeline=self.pipeline)
        if len(dataset) != len(pictures):
            raise ValueError('A part of a query is one picture, and not a folder of them.')
        items = [dataset[row] for row in range(len(dataset))]
        found: list[Any] = [None] * len(items)
        with evaluation_mode(self.model):
            for places, part in parts_of_one_size(pseudo_collate(items)):
                data = self.model.data_preprocessor(part, False)
                for place, row in zip(places, self.model.embed(data['inputs']).float(),
                                      strict=True):
                    found[place] = row
        return iter(found), {str(sample_id_of(item['data_samples'])) for item in items}

    def _check_threshold(self, threshold: float | None) -> None:
        """Scores that were reranked may have another scale than the similarity."""
        similarity = getattr(self.model, 'similarity', None)
        if threshold is not None and similarity is not None and not getattr(
                self.model, 'rerankers', None):
            checked_threshold(threshold, similarity)

    def answer(self, sample: Any, topk: int | None,
               threshold: float | None = None) -> dict[str, Any]:
        """The answer of :meth:`__call__` for one of :meth:`samples`."""
        if sample.get('unreadable', None):
            return dict(query=sample_id_of(sample), error=sample.unreadable)
        scores = sample.pred_score.tolist()
        calibration = None if self.calibration is None else self.calibration.of_query(scores)
        return described(sample_id_of(sample), sample.pred_label.tolist()[:topk], scores[:topk],
                         self.model.gallery, calibration, threshold, sample.get('pred_match', None))

    @torch.no_grad()
    def _searched(self, images: Any, on_unreadable: str, topk: int | None, filter: Any = None) \
            -> tuple[ImageList, list[RetrievalDataSample]]:
        images = list(images) if isinstance(images, (list, tuple)) else [images]
        dataset = ImageList(images, pipeline=self.pipeline, on_unreadable=on_unreadable,
                            lazy_init=not images)
        loader: Any = DataLoader(dataset, batch_size=self.batch_size,
                                 num_workers=self.num_workers, collate_fn=pseudo_collate)
        title = 'Searching' if self.progress and len(loader) > 1 else None
        options: dict[str, Any] = {} if topk is None else dict(
            topk=max(topk, 0 if self.calibration is None else self.calibration.depth))
        if isinstance(filter, str) and isinstance(self.model.gallery, Gallery):
            filter = self.model.gallery.where(filter)  # once for all batches
        if filter is not None:
            options['filter'] = filter
        answered: list[RetrievalDataSample] = []
        rerankers = getattr(self.model, 'rerankers', None)
        with evaluation_mode(self.model), progress_bar(title, len(dataset)) as bar:
            for batch in loader:
                samples = batch['data_samples']
                readable = [i for i, sample in enumerate(samples)
                            if not sample.get('unreadable', None)]
                for sample in samples:  # what rerankers may look at, and is no file
                    if rerankers and sample.get('img_path', None) is None:
                        image = dataset.get_data_info(sample.sample_idx)['img']
                        sample.set_field(image, 'picture', field_type='metainfo')
                parts = parts_of_one_size({key: [batch[key][i] for i in readable]
                                           for key in ('inputs', 'data_samples')})
                for _, part in parts if readable else ():
                    data = self.model.data_preprocessor(part, False)
                    self.model.predict(data['inputs'], data['data_samples'], **options)
                answered += samples
                bar.update(len(samples))
        return dataset, answered


def _as_calibration(calibration: Any, model: Any) -> MatchCalibration | None:
    """A calibration, from its file where a path is given.

    Raises:
        ValueError: it was made for another similarity than the model's.
        TypeError: it is something else.
    """
    if calibration is None:
        return None
    if isinstance(calibration, (str, os.PathLike)):
        calibration = MatchCalibration.load(calibration)
    if not isinstance(calibration, MatchCalibration):
        raise TypeError('calibration must be a MatchCalibration or its file, got '
                        f'{type(calibration).__name__}.')
    own = getattr(getattr(model, 'similarity', None), 'name', None)
    if own is not None and own != calibration.similarity:
        raise ValueError(f'The calibration is of the similarity {calibration.similarity!r}, the '
                         f'model searches by {own!r}: calibrate with '
                         f'similarity={own!r}.')
    return calibration
