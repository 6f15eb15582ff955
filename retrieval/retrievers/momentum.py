"""Training against a queue of keys from a slowly moving copy of the encoder."""
from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ..checks import real_number, whole_number
from ..distributed import all_gather_rows, rank, shard, world_size
from ..heads import EmbeddingQueue
from ..heads.targets import class_labels
from ..registry import MODELS
from ..similarity import normalize
from .image_to_image import ImageToImageRetriever
from .self_supervised import build_projector, instance_labels

_COPIES = {'key_encoder': 'image_encoder', 'key_projector': 'projector'}


@MODELS.register_module()
class MomentumRetriever(ImageToImageRetriever):
    """An image-to-image retriever that learns against a queue of keys (MoCo, He et al., "Momentum
    Contrast for Unsupervised Visual Representation Learning", CVPR 2020).

    Keys are made by a copy of the encoder whose weights follow it as ``key = m · key + (1 - m) ·
    encoder`` before each batch. The copy has no gradient and is in the checkpoint, as are the
    queue, its position and the number of steps; it takes no part in search.

    *Without a head* it learns from two views of unlabelled images: the query is the first view,
    its positive the key of the second, the negatives are the queue, and the loss is InfoNCE, the
    cross entropy of cosines over ``temperature``. Older keys of the same image are left out
    (the paper's queue is too short to hold any). The first batch has no negatives yet.

    *With a head* it learns from classes: the queries are compared by ``head.loss(feats,
    data_samples, ref_emb, ref_labels)`` with the queue and, where there are two views, with the
    keys of the batch. With one view no sample meets its own key, but in the first batch, which has
    nothing else to be compared with.

    The queue takes in the keys of all processes. Batch normalisation sees only the images of one
    process, and a query could tell its key by their common statistics; so, as in the paper, on
    several processes the keys are encoded in other batches than their queries.

    Args:
        image_encoder, prototype: as of :class:`ImageToImageRetriever`.
        head: None, or a config or module whose ``loss`` takes ``ref_emb`` and ``ref_labels``, as
            ``MetricHead``'s does.
        queue_size: how many keys the queue holds; at least the batch of all processes.
        momentum: m, in [0, 1].
        momentum_iters: None, or after how many iterations m has risen to 1 along a half cosine
            (Grill et al., BYOL, 2020).
        temperature: of InfoNCE.
        projector: as of ``SelfSupervisedRetriever``; the copy has one too (MoCo v2).
        embedding_size: the width of the keys, where encoder or projector do not say it.
        shuffle_batch_norm: whether keys are encoded in other batches on several processes, where
            the encoder has batch normalisation.
        kwargs: the other arguments of :class:`ImageToImageRetriever`.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or value; the message says which.
    """

    steps: Tensor

    def __init__(self, image_encoder: Any, prototype: Any = None,
                 head: dict[str, Any] | nn.Module | None = None, *,
                 queue_size: int = 65536, momentum: float = 0.999,
                 momentum_iters: int | None = None, temperature: float = 0.07,
                 projector: Any = None, embedding_size: int | None = None,
                 shuffle_batch_norm: bool = True, **kwargs: Any) -> None:
        super().__init__(image_encoder, prototype, head, **kwargs)
        if self.head is not None and 'ref_emb' not in inspect.signature(self.head.loss).parameters:
            raise TypeError(f'{type(self.head).__name__}.loss takes no ref_emb, so it cannot '
                            'compare with the queue: take a MetricHead, or no head for InfoNCE.')
        self.momentum = real_number('momentum', momentum, 0, 1)
        self.momentum_iters = (None if momentum_iters is None
                               else whole_number('momentum_iters', momentum_iters))
        self.temperature = real_number('temperature', temperature, above=0)
        self.shuffle_batch_norm = shuffle_batch_norm
        self.projector = build_projector(projector, self.image_encoder)
        self.key_encoder = deepcopy(self.image_encoder).requires_grad_(False)
        self.key_projector = (None if self.projector is None
                              else deepcopy(self.projector).requires_grad_(False))
        self.queue = EmbeddingQueue(queue_size, self._key_width(embedding_size))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    def _key_width(self, given: int | None) -> int:
        last = self.image_encoder if self.projector is None else self.projector
        width = getattr(last, 'embedding_size', None) if given is None else given
        if width is None:
            raise ValueError(f'{type(last).__name__} does not say how wide its embeddings are: '
                             'give MomentumRetriever its embedding_size.')
        return width

    def loss(self, inputs: Tensor | list[Tensor], data_samples: Any) -> dict[str, Tensor]:
        """The losses of a batch by name.

        Args:
            inputs: a list of two views, each ``(B, C, H, W)`` float32; with a head, one view is
                enough.
            data_samples: a sample an image; with a head, each with its class.

        Raises:
            ValueError: another number of views, or a sample without class or identity.
        """
        queries, keyed = self._two_views(inputs)
        count = len(queries)
        labels = (instance_labels if self.head is None else class_labels)(data_samples, count)
        labels = labels.to(queries.device)
        feats = self._projected(self.embed(queries), self.projector)
        keys, own = self._keys(keyed)
        if self.head is None:
            feats, keys = (normalize(part.float()) for part in (feats, keys))
            losses = {'loss': self._info_nce(feats, keys[own], labels)}
        else:
            with_keys = keyed is not queries or not int(self.queue.filled)
            reference = self._reference(keys, labels, own, with_keys)
            losses = self.head.loss(feats, data_samples, **reference)
        if self.training:
            self.queue.put(keys, all_gather_rows(labels))
        return losses

    def _two_views(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, Tensor]:
        views = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if len(views) == 1 and self.head is not None:
            return views[0], views[0]
        if len(views) != 2:
            raise ValueError(f'MomentumRetriever takes two views of an image (with a head one is '
                             f'enough), got {len(views)}: put MultiView(num_views=2, '
                             'transforms=[…]) into the training pipeline.')
        return views[0], views[1]

    def _info_nce(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy of each query's own key among it and the queue, eq. 1."""
        with torch.autocast(queries.device.type, enabled=False):
            others, other_labels = self.queue.rows()
            positive = (queries * keys).sum(dim=1, keepdim=True)
            negative = (queries @ others.to(queries).T).masked_fill(
                labels[:, None] == other_labels, -torch.inf)
            logits = torch.cat([positive, negative], dim=1) / self.temperature
            return functional.cross_entropy(logits, labels.new_zeros(len(labels)))

    def _reference(self, keys: Tensor, labels: Tensor, own: slice,
                   with_keys: bool) -> dict[str, Tensor]:
        """The reference set that the head compares the queries with, as its arguments.

        A head that gathers the reference sets of all processes is given a part of the queue, which
        they all have, and this process's keys.
        """
        rows, classes = self.queue.rows()
        gathers = getattr(self.head, 'gather', False)
        if gathers:
            part = shard(len(rows))
            rows, classes = rows[part.start:part.stop], classes[part.start:part.stop]
        if with_keys:
            rows = torch.cat([(keys[own] if gathers else keys).to(rows), rows])
            classes = torch.cat([labels if gathers else all_gather_rows(labels), classes])
        return {'ref_emb': rows, 'ref_labels': classes}

    @torch.no_grad()
    def _keys(self, images: Tensor) -> tuple[Tensor, slice]:
        """The keys of all processes ``(N, D)``, and where those of the process's own images are.
        """
        if self.training:
            self._follow()
        if world_size() == 1:
            return self._encode_keys(images), slice(0, len(images))
        counts = all_gather_rows(torch.tensor([len(images)], device=images.device)).tolist()
        start = sum(counts[:rank()])
        if self.shuffle_batch_norm and _has_batch_norm(self.key_encoder, self.key_projector):
            keys = self._encode_dealt_out(images, sum(counts))
        else:
            keys = all_gather_rows(self._encode_keys(images))
        return keys, slice(start, start + len(images))

    def _encode_dealt_out(self, images: Tensor, count: int) -> Tensor:
        """The keys of all processes, encoded by each for images that it takes in turn from all."""
        mine = torch.arange(rank(), count, world_size(), device=images.device)
        encoded = all_gather_rows(self._encode_keys(all_gather_rows(images)[mine]))
        dealt = torch.cat([torch.arange(part, count, world_size()) for part in range(world_size())])
        keys = torch.empty_like(encoded)
        keys[dealt.to(keys.device)] = encoded
        return keys

    def _encode_keys(self, images: Tensor) -> Tensor:
        feats = self.key_encoder(images)
        feats = feats[-1] if isinstance(feats, (tuple, list)) else feats
        return self._projected(feats, self.key_projector).float()

    @staticmethod
    def _projected(embeddings: Tensor, projector: nn.Module | None) -> Tensor:
        return embeddings if projector is None else projector(embeddings)

    def present_momentum(self) -> float:
        """m at this step: ``1 - (1 - m_0) (cos(π t / T) + 1) / 2`` under the cosine schedule."""
        if self.momentum_iters is None:
            return self.momentum
        done = min(int(self.steps) / self.momentum_iters, 1.0)
        return 1 - (1 - self.momentum) * (math.cos(math.pi * done) + 1) / 2

    def _follow(self) -> None:
        """Move the keys' weights towards the encoder's. Batch statistics are the copy's own."""
        share = 1 - self.present_momentum()
        for copy, original in self._pairs():
            for key, weight in zip(copy.parameters(), original.parameters(), strict=True):
                key.lerp_(weight, share)
        self.steps += 1

    def _pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        for copy, original in _COPIES.items():
            if getattr(self, copy) is not None:
                yield getattr(self, copy), getattr(self, original)

    def init_weights(self) -> None:
        """MMEngine's initialisation; the copy begins with the weights of the encoder."""
        first = not self.is_init
        super().init_weights()
        if first:
            for copy, original in self._pairs():
                copy.load_state_dict(original.state_dict())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A checkpoint without keys, of another retriever, makes them a copy of its encoder."""
        for copy, original in _COPIES.items():
            if not any(name.startswith(f'{prefix}{copy}.') for name in state_dict):
                start = f'{prefix}{original}.'
                state_dict.update({f'{prefix}{copy}.{name.removeprefix(start)}': value
                                   for name, value in list(state_dict.items())
                                   if name.startswith(start)})
        super()._load_from_state_dict(state_dict, prefix, *args)


def _has_batch_norm(*modules: nn.Module | None) -> bool:
    return any(isinstance(part, _BatchNorm) and part.training
               for module in modules if module is not None for part in module.modules())
