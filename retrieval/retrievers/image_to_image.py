"""The image-to-image retriever."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..checks import whole_number
from ..datasets.base import plain_config
from ..distributed import rank
from ..encoders import ImageEncoder, build_encoder, fill_in
from ..encoders.presets import no_words
from ..files import write_atomically
from ..gallery import Fingerprint, FingerprintError, Gallery, hash_settings
from ..index import Index, PartsIndex, check_gallery
from ..index.base import Filter
from ..ranking import as_vectors
from ..ranking.topk import select
from ..registry import INDEXES, MODELS
from ..rerank import apply_rerankers, build_rerankers, first_state
from ..similarity import SIMILARITIES, SimilarityFn, resolve_similarity
from ..structures import Neighbors, RetrievalDataSample, sample_id_of
from ..visualization import opened_picture
from .base import BaseRetriever
from .checkpoint import load_pretrained
from .encode import encode
from .encoded_file import check_target, write_gallery
from .prototype import (
    KINDS,
    IndexGallery,
    Prototype,
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


@MODELS.register_module()
class ImageToImageRetriever(BaseRetriever):
    """Finds, for each image, the most similar ones of a gallery.

    Args:
        image_encoder: config, list of configs (a sequence), or module: ``(B, C, H, W)`` float32
            to ``(B, D)``; of a tuple, the last element counts.
        prototype: where the gallery comes from: a ``DataLoader``, a dataloader config, the path
            of a gallery file or of a saved tensor, a tensor ``(N, D)``, a ``Gallery``, or an index,
            which is then searched itself. None: it is given later; in a run,
            ``PreparePrototypeHook`` gives the config's ``gallery_dataloader``.
        head: config or module with ``loss(feats, data_samples)``. Without one there is no loss.
        pretrained: path of a checkpoint to load.
        similarity_fn: ``'cosine_similarity'``, ``'inner_product'``, ``'euclidean'``, or a
            callable ``(Q, D), (N, D) -> (Q, N)``, larger for more similar.
        train_cfg: ``dict(augments=[...], probs=[...])``, batch augmentation such as Mixup.
        data_preprocessor: config or module; by default images are stacked to float32. Where a
            config gives no mean and std, bytes are normalised as the encoder's pretrained weights
            want it, where they are known (:func:`retrieval.encoders.fill_in`).
        topk: how many results a query gets; -1 for the whole gallery.
        init_cfg: MMEngine's initialisation config.
        index: config of the index that ``predict`` searches; with ``path`` it is read from a
            file that was built over this gallery, instead of being built at each start.
        rerank: configs of rerankers, applied in turn to what the index found; see
            :class:`retrieval.rerank.Reranker`.
        check_fingerprint: refuse a gallery that another model or pipeline made.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or value; the message says which.

    Example:
        >>> encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = ImageToImageRetriever(encoder, prototype=torch.eye(3), topk=1)
        >>> green = torch.tensor([0., 1., 0.]).reshape(1, 3, 1, 1)
        >>> model.predict(green)[0].pred_label
        tensor([1])
    """

    def __init__(self, image_encoder: dict[str, Any] | Sequence[dict[str, Any]] | nn.Module,
                 prototype: Prototype | None = None,
                 head: dict[str, Any] | nn.Module | None = None, pretrained: str | None = None,
                 similarity_fn: str | SimilarityFn = 'cosine_similarity',
                 train_cfg: dict[str, Any] | None = None,
                 data_preprocessor: dict[str, Any] | nn.Module | None = None, topk: int = -1,
                 init_cfg: dict[str, Any] | None = None, *, index: dict[str, Any] | None = None,
                 rerank: Sequence[dict[str, Any]] | None = None,
                 check_fingerprint: bool = True) -> None:
        if pretrained is not None and init_cfg is None:
            # The Runner initialises weights after this constructor; it must end with these.
            init_cfg = dict(type='Pretrained', checkpoint=str(pretrained))
        super().__init__(init_cfg=init_cfg,
                         data_preprocessor=_preprocessor_config(data_preprocessor, train_cfg,
                                                                image_encoder))
        self.image_encoder = build_encoder(image_encoder)
        self.head: Any = MODELS.build(head) if isinstance(head, dict) else head
        _check_head(self.image_encoder, self.head)
        self.similarity = resolve_similarity(similarity_fn)
        self.topk = _checked_topk(topk)
        self.index_cfg = dict(index or dict(type='retrieval.ExactIndex'))
        self.rerankers = build_rerankers(rerank, self.similarity)
        self.check_fingerprint = check_fingerprint
        self.query_pipeline: str | None = None
        self.holder = PrototypeHolder(check_prototype(prototype))
        self._words_hash: tuple[Any, str | None] = (None, None)
        if pretrained is not None:
            load_pretrained(self, pretrained)

    @property
    def similarity_fn(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The similarity function, ``(Q, D), (N, D) -> (Q, N)``."""
        return self.similarity.function

    @property
    def similarity_name(self) -> str | None:
        """The name of the similarity, None for a function of the user's."""
        name = self.similarity.name
        return name if SIMILARITIES.get(name) is self.similarity else None

    @property
    def prototype(self) -> Any:
        """The prototype as it was given. Setting another one forgets the gallery."""
        return self.holder.prototype

    @prototype.setter
    def prototype(self, prototype: Any) -> None:
        self.holder = PrototypeHolder(check_prototype(prototype))

    @property
    def prototype_inited(self) -> bool:
        """True where there is a gallery that belongs to the present weights."""
        return (self.holder.gallery is not None
                and self.holder.version == weights_version(self.image_encoder))

    # Encoding and training ------------------------------------------------------------------------

    def extract_feat(self, inputs: Tensor) -> Any:
        """The encoder's output for images ``(B, C, H, W)``: ``(B, D)``, or a tuple ending in it."""
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

    @property
    def has_words(self) -> bool:
        """True where the encoder has a text tower too."""
        return bool(getattr(self.image_encoder, 'has_words', False))

    @torch.no_grad()
    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """The embeddings ``(B, D)`` of texts, to search with.

        Raises:
            FingerprintError: a ``ValueError``; the gallery belongs to another text tower.
            ValueError: the encoder has none, or a text is empty.
        """
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f'Words to search for are text, and not empty; got {list(texts)!r}.')
        if not self.has_words:
            encoder = getattr(self.image_encoder, 'backbone', self.image_encoder)
            name = getattr(encoder, 'model_name', type(encoder).__name__)
            raise no_words(name, texts[0])
        made = None if self.holder.gallery is None else self.holder.gallery.fingerprint.words
        if self.check_fingerprint and made and made != self._words_fingerprint():
            raise FingerprintError('The gallery belongs to another text tower or tokenizer than '
                                   'that of the words, so their similarities would mean nothing. '
                                   'Search it by pictures, or encode it with this model.')
        return cast(Tensor, cast(Any, self.image_encoder).embed_words(list(texts)))

    def _words_fingerprint(self) -> str | None:
        version = weights_version(self.image_encoder)
        if self._words_hash[0] != version:
            self._words_hash = (version, self.fingerprint().words)
        return self._words_hash[1]

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

    # Searching ------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[RetrievalDataSample] | None = None,
                topk: int | None = None, filter: Filter | None = None,
                **kwargs: Any) -> list[RetrievalDataSample]:
        """Search the index for images ``(B, C, H, W)``.

        Args:
            inputs: preprocessed images.
            data_samples: filled and returned, where given; a query that is in the gallery, by
                its ``sample_id``, does not find itself.
            topk: how many results each gets, in the place of the retriever's own number.
            filter: what may be found at all; see :meth:`search`.
            kwargs: handed to ``head.predict(feats, data_samples, **kwargs)``, which may annotate
                the samples, or return other embeddings ``(B, D)`` to search with.

        Returns:
            The data samples, with ``pred_score``, ``pred_label`` and ``embedding``.
        """
        embeddings = self._query_embeddings(inputs, data_samples)
        if kwargs:
            embeddings = self._head_predict(embeddings, data_samples, kwargs)
        return self.search(embeddings, data_samples, topk, filter)

    @torch.no_grad()
    def search(self, embeddings: Tensor, data_samples: list[RetrievalDataSample] | None = None,
               topk: int | None = None, filter: Filter | None = None,
               pictures: Callable[[str], Any] | None = None) -> list[RetrievalDataSample]:
        """Search the index, and rerank, for embeddings ``(Q, D)``; see :meth:`predict`.

        Args:
            filter: what the index may find at all: a text such as ``'price<20'`` over the columns
                of the gallery (:mod:`retrieval.gallery.filters`), or as
                :meth:`retrieval.index.Index.search` takes it.
            pictures: from the id of a row to its picture, an array uint8 or None, for rerankers
                that compare pictures; by default the file that the id names, or that of the
                prototype's dataset. That of a query is its sample's ``picture`` (such an array, or
                a function that returns it), or its file.
        """
        gallery, index = self._ready()
        if isinstance(filter, str) and not index.capabilities.expressions:
            filter = gallery.where(filter)
        self._check_width(embeddings, gallery)
        exclude = None
        if data_samples is not None and gallery.identified:
            exclude = [sample_id_of(sample) for sample in data_samples]
        count = self._result_count(len(gallery), topk)
        if not self.rerankers:
            return _fill(data_samples, index.search(embeddings, count, exclude=exclude,
                                                    filter=filter), embeddings)
        own = None if exclude is None else [gallery.rows.get(str(one), -1) for one in exclude]
        neighbors = apply_rerankers(self.rerankers, first_state(
            embeddings, gallery, count, self.similarity, own, gallery_ids=gallery.ids,
            engine=lambda queries, k: index.search(queries, k, exclude=exclude, filter=filter),
            **self._pictures(data_samples, gallery, pictures)))
        return _fill(data_samples, neighbors, embeddings)

    def _pictures(self, samples: list[RetrievalDataSample] | None, gallery: Gallery,
                  given: Callable[[str], Any] | None) -> dict[str, Any]:
        """How rerankers get at the pictures, where there are any."""
        if samples is None or not gallery.identified:
            return {}
        own, of_row = self.holder.pictures, given or self.holder.pictures.of

        def of_query(number: int) -> Any:
            sample = samples[number]
            picture, path = sample.get('picture', None), sample.get('img_path', None)
            if picture is not None:
                return picture() if callable(picture) else picture
            return _as_array(own.of(str(sample_id_of(sample))) if path is None else
                             opened_picture(path, sample.get('box', None)))
        return dict(query_picture=of_query,
                    row_picture=lambda row: _as_array(of_row(str(gallery.ids[row]))))

    def _query_embeddings(self, inputs: Tensor,
                          samples: list[RetrievalDataSample] | None) -> Tensor:
        """Embeddings from the gallery where the evaluated set is the gallery, else encoded."""
        if self.holder.queries_in_gallery and samples is not None:
            gallery = self.gallery
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

    def _result_count(self, rows: int, topk: int | None = None) -> int:
        topk = self.topk if topk is None else _checked_topk(topk)
        return rows if topk == -1 else min(topk, rows)

    @staticmethod
    def _check_width(embeddings: Tensor, gallery: Gallery) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != gallery.dim:
            raise ValueError(
                f'The prototype has embeddings of width {gallery.dim}, the encoder gives '
                f'{tuple(embeddings.shape)}. Dump the prototype with this encoder.')

    # The prototype, and the gallery and index that it becomes -------------------------------------

    @property
    def gallery(self) -> Gallery:
        """The gallery of the present weights; it is prepared where it is missing or stale."""
        return self._ready()[0]

    def _ready(self) -> tuple[Gallery, Index]:
        if not self.prototype_inited:
            self.prepare_prototype()
        assert self.holder.gallery is not None and self.holder.index is not None
        return self.holder.gallery, self.holder.index

    def search_in(self, prototype: Any = None, pipeline: Sequence[Any] | None = None,
                  dataset: Any = None) -> None:
        """Search in another prototype from now on, or for the queries of another pipeline.

        Args:
            prototype: as of the constructor; None for the present one.
            pipeline: config of the pipeline that the queries go through, which a gallery that was
                made before must have gone through too; None where it is not to be compared.
            dataset: what the prototype was encoded from, where rerankers are to find pictures that
                are no files.

        Raises:
            TypeError, ValueError: it can be no prototype.
        """
        if prototype is not None:
            self.prototype = prototype
        if dataset is not None:
            self.holder.dataset = dataset
        self.query_pipeline = None if pipeline is None else hash_settings(
            plain_config(list(pipeline)))

    def begin_evaluation(self, dataset: Any) -> Gallery:
        """Prepare the prototype, with the present weights, for the queries of a dataset.

        Until :meth:`end_evaluation` queries that are in the gallery take their embeddings from
        there, where it went through the same pipeline.

        Returns:
            The gallery.

        Raises:
            FingerprintError, FileNotFoundError, ValueError: see :meth:`prepare_prototype`.
        """
        self.query_pipeline = pipeline_hash(dataset)
        self.prepare_prototype()
        gallery = self.gallery
        self.holder.queries_in_gallery = (
            gallery.identified and self.query_pipeline is not None
            and gallery.fingerprint.pipeline == self.query_pipeline)
        return gallery

    def end_evaluation(self) -> None:
        """From now on every query is encoded."""
        self.holder.queries_in_gallery = False

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
        gallery: Any
        index: Index
        if isinstance(prototype, Index):
            gallery, index = IndexGallery(prototype), prototype
            self._check_fingerprint(gallery)
        elif self.index_cfg.get('path') is not None:
            gallery = self._make_gallery(prototype)
            index = self._read_index(gallery)
        else:
            index = self.new_index()  # before an encoding of hours: is its server up?
            gallery = self._make_gallery(prototype)
            fill_index(index, gallery)
        self.holder.gallery, self.holder.index = gallery, index
        self.holder.version = weights_version(self.image_encoder)

    def _make_gallery(self, prototype: Any) -> Gallery:
        if is_encoded(prototype):
            loader = prototype if isinstance(prototype, DataLoader) else build_loader(prototype)
            self.holder.dataset = loader.dataset
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

    def new_index(self) -> Index:
        """The empty index of the config; what that leaves open is the retriever's."""
        kind, options = self._index_options()
        options.setdefault('similarity', self.similarity_name or self.similarity.function)
        if issubclass(kind, PartsIndex):
            options.setdefault('parts', getattr(self.image_encoder, 'parts', 1))
        return INDEXES.build(dict(options, type=kind))

    def _read_index(self, gallery: Gallery) -> Index:
        """The index that the config's ``path`` names.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or belongs to another gallery or similarity.
        """
        kind, options = self._index_options()
        path = self.index_cfg['path']
        accepted = set(kind.load_options) - {'similarity'}
        unknown = sorted(set(self.index_cfg) - accepted - {'type', 'path'})
        if unknown:
            raise ValueError(f'An index that is read from {str(path)!r} has its settings there; '
                             f'{", ".join(unknown)} cannot be given beside `path`. Valid are: '
                             f'{", ".join(sorted(accepted))}.')
        if 'similarity' in kind.load_options and self.similarity_name is None:
            options['similarity'] = self.similarity.function  # a callable is in no file
        index = kind.load(path, **options)
        if index.similarity.name != self.similarity.name:
            raise ValueError(f'The index {str(path)!r} searches by {index.similarity.name}, the '
                             f'retriever by {self.similarity.name}. Build it again with '
                             f'--similarity {self.similarity.name}.')
        check_gallery(index, gallery.embeddings, gallery.ids, path)
        return index

    def _index_options(self) -> tuple[type[Index], dict[str, Any]]:
        """The class of the config's index, and the options, with the model's device."""
        options = {name: value for name, value in self.index_cfg.items()
                   if name not in ('type', 'path')}
        given = self.index_cfg.get('type')
        kind = INDEXES.get(given) if isinstance(given, str) else given
        if not (isinstance(kind, type) and issubclass(kind, Index)):
            raise TypeError('The type of an index must be a subclass of retrieval.index.Index, got '
                            f'{given!r}.')
        if kind.follows_device:
            options.setdefault('device', next(
                (str(weight.device) for weight in self.parameters()), 'cpu'))
        return kind, options

    def fingerprint(self, dataset: Any = None) -> Fingerprint:
        """The fingerprint of how an image is encoded; the pipeline is the dataset's where one is
        given, else :attr:`query_pipeline`.
        """
        return fingerprint_of(self.image_encoder, self.data_preprocessor,
                              self.query_pipeline if dataset is None else pipeline_hash(dataset))

    def dump_prototype(self, path: str | os.PathLike[str], dtype: str | None = None,
                       **source: Any) -> None:
        """Write the gallery to a file that can be given as ``prototype``.

        Args:
            path: a file ``.safetensors``, or a new store ``.gallery``; or ``.pth`` for the vectors
                alone, a tensor ``(N, D)`` as mmpretrain writes and reads it.
            dtype: ``'float32'``, ``'float16'`` or, in a gallery, ``'int8'``; by default as the
                gallery is stored (``.pth``: float32).
            source: how it was made (``config``, ``checkpoint``), kept with a gallery.

        Raises:
            FileExistsError: there is a store of that name.
            ValueError: it is no name of a gallery, the prototype is an index, or a tensor is to
                hold int8 or a source.
        """
        vectors_alone = os.fspath(path).endswith(('.pth', '.pt'))
        if not vectors_alone:
            check_target(path)
        elif dtype not in (None, 'float32', 'float16') or source:
            raise ValueError(f'{os.fspath(path)!r} holds a tensor alone, in float32 or float16: '
                             f'dtype={dtype!r} and a source want a path that ends in .safetensors.')
        gallery, _ = self._ready()
        if isinstance(gallery, IndexGallery):
            raise ValueError('The prototype is an index alone, which holds no gallery to write: '
                             'save the index.')
        gallery.source.update(source)
        if rank() == 0 and vectors_alone:
            vectors = gallery.embeddings.to(getattr(torch, dtype or 'float32'))
            write_atomically(path, lambda temporary: torch.save(vectors, temporary))
        elif rank() == 0:
            write_gallery(gallery, path, dtype)

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


def _checked_topk(topk: Any) -> int:
    return topk if topk == -1 else whole_number('topk (or -1 for the whole gallery)', topk)


def _check_head(encoder: nn.Module, head: Any) -> None:
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


def _preprocessor_config(config: dict[str, Any] | nn.Module | None,
                         train_cfg: dict[str, Any] | None, image_encoder: Any) -> Any:
    """The data preprocessor's config with its defaults, the encoder's normalisation and the batch
    augmentation; a module as it is.

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
    return fill_in(config, image_encoder)


def _as_array(picture: Any) -> np.ndarray | None:
    return None if picture is None else np.asarray(picture)


def _fill(samples: list[Any] | None, neighbors: Neighbors, embeddings: Tensor) -> list[Any]:
    samples = [RetrievalDataSample() for _ in embeddings] if samples is None else samples
    found = zip(neighbors.scores.float(), neighbors.indices, neighbors.lengths.tolist(),
                strict=True)
    for sample, embedding, (scores, rows, length) in zip(samples, embeddings, found, strict=True):
        # As fields and not by setters, since a foreign data sample's setters have other checks.
        sample.set_field(scores[:length], 'pred_score', dtype=Tensor)
        sample.set_field(rows[:length], 'pred_label', dtype=Tensor)
        sample.set_field(embedding.float(), 'embedding', dtype=Tensor)
    if neighbors.matches is not None:
        for sample, matches in zip(samples, neighbors.matches, strict=True):
            sample.set_field(list(matches), 'pred_match')
    return samples
