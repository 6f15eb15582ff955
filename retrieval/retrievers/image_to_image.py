"""Reading what a retriever is given.

The image-to-image retriever.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..distributed import rank
from ..encoders import ImageEncoder, build_encoder
from ..gallery import Fingerprint, FingerprintError, Gallery
from ..index import Index, check_gallery
from ..ranking import as_vectors
from ..ranking.topk import select
from ..registry import INDEXES, MODELS
from ..rerank import apply_rerankers, build_rerankers, first_state
from ..similarity import SIMILARITIES, Similarity, SimilarityFn, resolve_similarity
from ..structures import Neighbors, RetrievalDataSample, sample_id_of
from .base import BaseRetriever
from .checkpoint import load_pretrained
from .encode import encode
from .encoded_file import check_target, write_gallery
from .prototype import (
    KINDS,
    PrototypeHolder,
    build_loader,
    check_prototype,
    difference_message,
    fill_index,
    fingerprint_of,
    is_encoded,
    pipeline_hash,
    weights_version,
)


def new_index(config: Mapping[str, Any], similarity: Similarity, device: str) -> Index | None:
    """The empty index of a config, None where it says a ``path`` to read one from; what it leaves
    open of similarity and device is the retriever's.
    """
    if config.get('path') is not None:
        return None
    config = {name: value for name, value in config.items() if name != 'path'}
    _fill_in(config, _kind(config), similarity, device)
    return INDEXES.build(config)


def read_index(config: Mapping[str, Any], similarity: Similarity, device: str,
               gallery: Gallery) -> Index:
    """The index that a config's ``path`` names, which must have been built over this gallery.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or belongs to another gallery or similarity.
    """
    config = dict(config)
    path = config.pop('path')
    return _load_index(_kind(config), path, config, similarity, device, gallery)


def check_head(encoder: nn.Module, head: Any) -> None:
    """Refuse a head whose losses want embeddings of another width than the encoder's.

    Raises:
        ValueError: both say their ``embedding_size``, and not the same.
    """
    given = getattr(encoder, 'embedding_size', None)
    wanted = getattr(head, 'embedding_size', None)
    if isinstance(given, int) and isinstance(wanted, int) and given != wanted:
        raise ValueError(
            f'The encoder gives embeddings of width {given}, and the losses of '
            f'{type(head).__name__} want {wanted}: write embedding_size={given} into the loss '
            f'(in_features of a ClassificationHead), or project to it, '
            f"image_encoder=dict(type='ImageEncoder', projection={wanted}, …).")


def _kind(config: Mapping[str, Any]) -> type[Index]:
    kind = config.get('type')
    found = INDEXES.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, Index)):
        raise TypeError(f'The type of an index must be a subclass of retrieval.index.Index, got '
                        f'{kind!r}.')
    return found


def _fill_in(config: dict[str, Any], kind: type[Index], similarity: Similarity,
             device: str) -> None:
    """Give a config what it leaves open of the retriever's similarity and device."""
    named = similarity is SIMILARITIES.get(similarity.name)
    config.setdefault('similarity', similarity.name if named else similarity.function)
    if kind.follows_device:
        config.setdefault('device', device)


def _load_index(kind: type[Index], path: str, config: dict[str, Any], similarity: Similarity,
                device: str, gallery: Gallery) -> Index:
    options = {name: value for name, value in config.items() if name != 'type'}
    accepted = set(kind.load_options) - {'similarity'}
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise ValueError(f'An index that is read from {str(path)!r} has its settings there; '
                         f'{", ".join(unknown)} cannot be given beside `path`. Valid are: '
                         f'{", ".join(sorted(accepted))}.')
    if kind.follows_device:
        options.setdefault('device', device)
    if 'similarity' in kind.load_options and similarity is not SIMILARITIES.get(similarity.name):
        options['similarity'] = similarity.function  # a callable is not written into a file
    index = kind.load(path, **options)
    if index.similarity.name != similarity.name:
        raise ValueError(f'The index {str(path)!r} searches by {index.similarity.name}, the '
                         f'retriever by {similarity.name}. Build it again with '
                         f'--similarity {similarity.name}.')
    check_gallery(index, gallery.embeddings, gallery.ids, path)
    return index


def preprocessor_config(config: dict | nn.Module | None, train_cfg: dict | None) -> Any:
    """The data preprocessor's config with its defaults and the batch augmentation; a module as it
    is.

    Raises:
        ValueError: ``train_cfg`` has unknown keys, or augments that a module cannot be given.
    """
    if isinstance(config, nn.Module):
        if train_cfg and train_cfg.get('augments'):
            raise ValueError('train_cfg has augments, but the data preprocessor is a module '
                             'already: give its `batch_augments` where it is built.')
        return config
    config = dict(config or {})
    config.setdefault('type', 'retrieval.RetrievalDataPreprocessor')
    unknown = set(train_cfg or {}) - {'augments', 'probs'}
    if unknown:
        raise ValueError(f'train_cfg has the unknown keys {", ".join(sorted(unknown))}. Valid '
                         'keys: augments, probs.')
    if train_cfg and train_cfg.get('augments'):
        config['batch_augments'] = dict(train_cfg)
    return config


def checked_topk(topk: Any) -> int:
    """``topk`` as it is. Raises TypeError for no integer, ValueError for 0 or below -1."""
    if isinstance(topk, bool) or not isinstance(topk, int):
        raise TypeError(f'topk must be an integer, got {topk!r}.')
    if topk == 0 or topk < -1:
        raise ValueError(f'topk must be at least 1, or -1 for the whole gallery; got {topk}.')
    return topk


@MODELS.register_module()
class ImageToImageRetriever(BaseRetriever):
    """Finds, for each image, the most similar ones of a gallery.

    Args:
        image_encoder: config, list of configs (a sequence), or module: ``(B, C, H, W)`` float32
            to ``(B, D)``; of a tuple, the last element counts.
        prototype: where the gallery comes from: a ``DataLoader``, a dataloader config, the path
            of a gallery file or of a saved tensor, a tensor ``(N, D)``, or a ``Gallery``. None: it
            is given later; in a run, ``PreparePrototypeHook`` gives the config's
            ``gallery_dataloader``.
        head: config or module with ``loss(feats, data_samples)``. Without one there is no loss.
        pretrained: path of a checkpoint to load.
        similarity_fn: ``'cosine_similarity'``, ``'inner_product'``, ``'euclidean'``, or a
            callable ``(Q, D), (N, D) -> (Q, N)``, larger for more similar.
        train_cfg: ``dict(augments=[...], probs=[...])``, batch augmentation such as Mixup.
        data_preprocessor: config or module; by default images are stacked to float32 and
            nothing is normalised.
        topk: how many results a query gets; -1 for the whole gallery.
        init_cfg: MMEngine's initialisation config.
        index: config of the index that ``predict`` searches; with ``path`` it is read from a
            file that was built over this gallery, instead of being built at each start.
        rerank: configs of rerankers, applied in turn to what the index found; see
            :class:`retrieval.rerank.Reranker`.
        check_fingerprint: refuse a gallery that another model or pipeline made.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or value; the message says which.
    """

    def __init__(self, image_encoder: dict | Sequence[dict] | nn.Module,
                 prototype: DataLoader | dict | str | os.PathLike | Tensor | Gallery | None = None,
                 head: dict | nn.Module | None = None, pretrained: str | None = None,
                 similarity_fn: str | SimilarityFn = 'cosine_similarity',
                 train_cfg: dict | None = None,
                 data_preprocessor: dict | nn.Module | None = None, topk: int = -1,
                 init_cfg: dict | None = None, *, index: dict | None = None,
                 rerank: Sequence[dict] | None = None, check_fingerprint: bool = True) -> None:
        if pretrained is not None and init_cfg is None:
            # The Runner initialises weights after this constructor; it must end with these.
            init_cfg = dict(type='Pretrained', checkpoint=str(pretrained))
        super().__init__(init_cfg=init_cfg,
                         data_preprocessor=preprocessor_config(data_preprocessor, train_cfg))
        self.image_encoder = build_encoder(image_encoder)
        self.head: Any = MODELS.build(head) if isinstance(head, dict) else head
        check_head(self.image_encoder, self.head)
        self._similarity = resolve_similarity(similarity_fn)
        self.topk = checked_topk(topk)
        self.index_cfg = dict(index or dict(type='retrieval.ExactIndex'))
        self.rerankers = build_rerankers(rerank, self._similarity)
        self.check_fingerprint = check_fingerprint
        self.query_pipeline: str | None = None
        self.holder = PrototypeHolder(check_prototype(prototype))
        if pretrained is not None:
            load_pretrained(self, pretrained)

    @property
    def similarity_fn(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The similarity function, ``(Q, D), (N, D) -> (Q, N)``."""
        return self._similarity.function

    @property
    def similarity_name(self) -> str | None:
        """The name of the similarity, None for a function of the user's."""
        name = self._similarity.name
        return name if SIMILARITIES.get(name) is self._similarity else None

    @property
    def prototype(self) -> Any:
        """The prototype as it was given. Setting another one forgets the gallery."""
        return self.holder.prototype

    @prototype.setter
    def prototype(self, prototype: Any) -> None:
        self.holder = PrototypeHolder(check_prototype(prototype))

    @property
    def prototype_inited(self) -> bool:
        """Whether there is a gallery that belongs to the present weights."""
        return (self.holder.gallery is not None
                and self.holder.version == weights_version(self.image_encoder))

    @property
    def gallery(self) -> Gallery:
        """The gallery of the present weights; it is prepared where it is missing or stale."""
        return self._ready()[0]

    def _ready(self) -> tuple[Gallery, Index]:
        if not self.prototype_inited:
            self.prepare_prototype()
        assert self.holder.gallery is not None and self.holder.index is not None
        return self.holder.gallery, self.holder.index

    def extract_feat(self, inputs: Tensor) -> Any:
        """What the encoder makes of images ``(B, C, H, W)``: ``(B, D)``, or a tuple ending in it.
        """
        return self.image_encoder(inputs)

    def embed(self, inputs: Tensor) -> Tensor:
        """The embeddings ``(B, D)`` of images ``(B, C, H, W)``.

        Raises:
            ValueError: the encoder returned something of another shape.
        """
        feats = self.extract_feat(inputs)
        if isinstance(feats, (tuple, list)):
            feats = feats[-1]
        if not isinstance(feats, Tensor) or feats.ndim != 2:
            got = tuple(feats.shape) if isinstance(feats, Tensor) else type(feats).__name__
            raise ValueError(f'The image encoder must return embeddings (B, D), got {got}. Does it '
                             'want a pooling (`GlobalAveragePooling`) after its backbone?')
        return feats

    def loss(self, inputs: Tensor,
             data_samples: list[RetrievalDataSample] | None) -> dict[str, Tensor]:
        """The head's losses of a batch by name.

        Raises:
            ValueError: there is no head, or there are no data samples.
        """
        if self.head is None:
            raise ValueError('This retriever has no head, so it has no loss. Give it one, such as '
                             "head=dict(type='MetricHead', loss=dict(type='PML.ArcFaceLoss', …)).")
        if data_samples is None:
            raise ValueError("mode='loss' wants data_samples with the images' labels; got None.")
        return self.head.loss(self.extract_feat(inputs), data_samples)

    @torch.no_grad()
    def matching(self, inputs: Tensor) -> dict[str, Tensor]:
        """The similarity of embeddings to the whole gallery, dense and exact.

        Args:
            inputs: embeddings ``(Q, D)``.

        Returns:
            ``score (Q, N)``, the similarity to each row; ``pred_score (Q, k)`` float32 descending
            and ``pred_label (Q, k)`` int64 rows of the gallery, aligned; k is ``topk``, or N.

        Raises:
            ValueError: the width is not the gallery's, or a value is not finite.
        """
        gallery, _ = self._ready()
        self._check_width(inputs, gallery)
        queries = as_vectors(inputs, 'queries')
        score = self.similarity_fn(queries, gallery.embeddings.to(queries.device)).float()
        pred_score, pred_label = select(score, self._result_count(len(gallery)))
        return dict(score=score, pred_label=pred_label, pred_score=pred_score)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[RetrievalDataSample] | None = None,
                **kwargs: Any) -> list[RetrievalDataSample]:
        """Search the index for images ``(B, C, H, W)``.

        Args:
            inputs: preprocessed images.
            data_samples: filled and returned, where given; a query that is in the gallery, by
                its ``sample_id``, does not find itself.
            kwargs: handed to ``head.predict(feats, data_samples, **kwargs)``, which may annotate
                the samples, or return other embeddings ``(B, D)`` to search with.

        Returns:
            The data samples, with ``pred_score``, ``pred_label`` and ``embedding``.
        """
        gallery, _ = self._ready()
        embeddings = self._query_embeddings(inputs, data_samples, gallery)
        if kwargs:
            embeddings = self._head_predict(embeddings, data_samples, kwargs)
        return self.search(embeddings, data_samples)

    @torch.no_grad()
    def search(self, embeddings: Tensor,
               data_samples: list[RetrievalDataSample] | None = None) -> list[RetrievalDataSample]:
        """Search the index, and rerank, for embeddings ``(Q, D)``; see :meth:`predict`."""
        gallery, index = self._ready()
        self._check_width(embeddings, gallery)
        exclude = None
        if data_samples is not None and gallery.identified:
            exclude = [sample_id_of(sample) for sample in data_samples]
        count = self._result_count(len(gallery))
        if not self.rerankers:
            return _fill(data_samples, index.search(embeddings, count, exclude=exclude), embeddings)
        own = None if exclude is None else [gallery.rows.get(str(one), -1) for one in exclude]
        neighbors = apply_rerankers(self.rerankers, first_state(
            embeddings, gallery, count, self._similarity, own, gallery_ids=gallery.ids,
            engine=lambda queries, k: index.search(queries, k, exclude=exclude)))
        return _fill(data_samples, neighbors, embeddings)

    def _query_embeddings(self, inputs: Tensor, samples: list[RetrievalDataSample] | None,
                          gallery: Gallery) -> Tensor:
        """Embeddings from the gallery where the evaluated set is the gallery, else encoded."""
        if self.holder.queries_in_gallery and samples is not None:
            rows = [gallery.rows.get(str(sample_id_of(sample)), -1) for sample in samples]
            if min(rows) >= 0:
                return gallery.embeddings[rows].to(inputs.device)
        return self.embed(inputs)

    def _head_predict(self, embeddings: Tensor, samples: list[RetrievalDataSample] | None,
                      kwargs: dict[str, Any]) -> Tensor:
        if not callable(getattr(self.head, 'predict', None)):
            raise TypeError(f'predict got the keyword arguments {", ".join(sorted(kwargs))}, which '
                            'are handed to the head, but '
                            + ('there is no head.' if self.head is None else
                               f'{type(self.head).__name__} has no `predict`.'))
        result = self.head.predict(embeddings, samples, **kwargs)
        return result if isinstance(result, Tensor) else embeddings

    @torch.no_grad()
    def prepare_prototype(self) -> None:
        """Make the gallery and its index from the prototype, with the present weights.

        Raises:
            FingerprintError: a ``ValueError``; the gallery was made by another model or pipeline.
            FileNotFoundError: its file is missing.
            ValueError: there is none, it is empty or non-finite, or the index's file belongs to
                another gallery. Another width than the encoder's is seen when the first query is
                encoded.
        """
        prototype = self.holder.prototype
        if prototype is None:
            raise ValueError('The retriever has no prototype, so there is nothing to search in. '
                             'Write `gallery_dataloader` in the config, or give `prototype`: '
                             f'{KINDS}.')
        self.holder.clear()
        device = next((str(weight.device) for weight in self.parameters()), 'cpu')
        # Before the encoding, which may take hours: a server that is down is seen at once.
        index = new_index(self.index_cfg, self._similarity, device)
        gallery = self._make_gallery(prototype)
        if index is None:
            index = read_index(self.index_cfg, self._similarity, device, gallery)
        else:
            fill_index(index, gallery)
        self.holder.gallery, self.holder.index = gallery, index
        self.holder.version = weights_version(self.image_encoder)

    def _make_gallery(self, prototype: Any) -> Gallery:
        if is_encoded(prototype):
            loader = prototype if isinstance(prototype, DataLoader) else build_loader(prototype)
            gallery = encode(self, loader, progress='Encoding the prototype')
            gallery.fingerprint = self.fingerprint(loader.dataset)
            gallery.similarity = self.similarity_name
            return gallery
        if isinstance(prototype, Gallery):
            gallery = prototype
        elif isinstance(prototype, Tensor):
            gallery = Gallery(prototype)
        else:
            gallery = Gallery.load(prototype)
        self._check_fingerprint(gallery)
        return gallery

    def _check_fingerprint(self, gallery: Gallery) -> None:
        if self.check_fingerprint and gallery.fingerprint != Fingerprint():
            message = difference_message(gallery.fingerprint, self.fingerprint())
            if message:
                raise FingerprintError(message)

    def fingerprint(self, dataset: Any = None) -> Fingerprint:
        """What decides how an image is encoded; the pipeline is the dataset's where one is given,
        else :attr:`query_pipeline`.
        """
        return fingerprint_of(self.image_encoder, self.data_preprocessor,
                              self.query_pipeline if dataset is None else pipeline_hash(dataset))

    def up_to(self, part: str) -> ImageToImageRetriever:
        """A retriever without prototype whose embeddings are the features of a part of the encoder.

        Args:
            part: ``'pooling'`` or ``'projection'``, see :meth:`ImageEncoder.up_to`.

        Raises:
            TypeError: the encoder is no :class:`ImageEncoder`.
        """
        if not isinstance(self.image_encoder, ImageEncoder):
            raise TypeError('Features are those of an ImageEncoder, which says where backbone and '
                            f'pooling end; the model has {type(self.image_encoder).__name__}.')
        return ImageToImageRetriever(self.image_encoder.up_to(part), similarity_fn='inner_product',
                                     data_preprocessor=self.data_preprocessor)

    def dump_prototype(self, path: str | os.PathLike, dtype: str | None = None,
                       **source: Any) -> None:
        """Write the gallery to a file that can be given as ``prototype``.

        Args:
            path: a file ``.safetensors``, or a new store ``.gallery``.
            dtype: ``'float32'``, ``'float16'`` or ``'int8'``; by default as the gallery is stored.
            source: how it was made (``config``, ``checkpoint``), kept with it.
        """
        check_target(path)
        gallery, _ = self._ready()
        gallery.source.update(source)
        if rank() == 0:
            write_gallery(gallery, path, dtype)

    def _result_count(self, rows: int) -> int:
        return rows if self.topk == -1 else min(self.topk, rows)

    @staticmethod
    def _check_width(embeddings: Tensor, gallery: Gallery) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != gallery.dim:
            raise ValueError(
                f'The prototype has embeddings of width {gallery.dim}, the encoder gives '
                f'{tuple(embeddings.shape)}. Dump the prototype with this encoder.')


def _fill(samples: list[Any] | None, neighbors: Neighbors, embeddings: Tensor) -> list[Any]:
    samples = [RetrievalDataSample() for _ in embeddings] if samples is None else samples
    found = zip(neighbors.scores.float(), neighbors.indices, neighbors.lengths.tolist(),
                strict=True)
    for sample, embedding, (scores, rows, length) in zip(samples, embeddings, found, strict=True):
        # As fields and not by setters, since a foreign data sample's setters have other checks.
        sample.set_field(scores[:length], 'pred_score', dtype=Tensor)
        sample.set_field(rows[:length], 'pred_label', dtype=Tensor)
        sample.set_field(embedding.float(), 'embedding', dtype=Tensor)
    return samples
