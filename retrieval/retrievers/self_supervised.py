"""Training without labels, on several views of each image."""
from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..checks import whole_number
from ..encoders import build_encoder
from ..registry import MODELS
from ..structures import RetrievalDataSample, sample_id_of
from .image_to_image import ImageToImageRetriever


@MODELS.register_module()
class ProjectionMLP(nn.Module):
    """Linear layers with ReLU between them, ``(B, C) -> (B, D)``, as SimCLR (Chen et al., ICML
    2020) and MoCo v2 put them between encoder and loss.

    Args:
        in_features: C.
        hidden_features: the width between the layers.
        out_features: D.
        num_layers: how many linear layers, at least 1.
        norm: whether batch normalisation follows each layer but the last.

    Raises:
        TypeError, ValueError: a width or number that is not a positive integer.
    """

    def __init__(self, in_features: int, hidden_features: int = 512, out_features: int = 128,
                 num_layers: int = 2, norm: bool = True) -> None:
        super().__init__()
        for name, value in (('in_features', in_features), ('hidden_features', hidden_features),
                            ('out_features', out_features), ('num_layers', num_layers)):
            whole_number(f'{name} of a projector', value)
        layers: list[nn.Module] = []
        width = in_features
        for _ in range(num_layers - 1):
            layers += [nn.Linear(width, hidden_features, bias=not norm),
                       *([nn.BatchNorm1d(hidden_features)] if norm else []), nn.ReLU()]
            width = hidden_features
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))
        self.embedding_size = out_features

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)


def build_projector(config: Any, encoder: nn.Module) -> nn.Module | None:
    """The projector of a config, which is a :class:`ProjectionMLP` where it has no ``type``.

    Raises:
        ValueError: the encoder does not say how wide its embeddings are, and the config neither.
        TypeError: it is neither config nor module.
    """
    if isinstance(config, dict) and 'type' not in config:
        config = dict(type='retrieval.ProjectionMLP', **config)
        config.setdefault('in_features', getattr(encoder, 'embedding_size', None))
        if config['in_features'] is None:
            raise ValueError(f'{type(encoder).__name__} does not say how wide its embeddings are: '
                             'write in_features into the projector.')
    return None if config is None else build_encoder(config, 'projector')


def instance_labels(data_samples: Sequence[BaseDataElement] | None, count: int) -> Tensor:
    """A number for each image, ``(B,)`` int64, the same for every view of it.

    It is the sample's row in its dataset (``sample_idx``), so it is the same on all processes, in
    all epochs and after resuming. Where not every sample has one, 63 bits of a digest of the
    identity (:func:`retrieval.structures.sample_id_of`) take its place.

    Raises:
        ValueError: another number of samples than of images, or one without an identity.
    """
    if data_samples is None or len(data_samples) != count:
        given = 'no' if data_samples is None else len(data_samples)
        raise ValueError(f'The loss was given {count} images and {given} data samples: give one '
                         'sample an image, which tells its views from those of others.')
    rows = [sample.get('sample_idx') for sample in data_samples]
    if None not in rows:
        return torch.tensor([int(row) for row in rows])
    names = [sample_id_of(sample) for sample in data_samples]
    if None in names:
        raise ValueError('A data sample has no sample_idx, sample_id or img_path, so it is unknown '
                         'which views belong together: does the pipeline end in PackInputs?')
    digests = [blake2b(os.fsencode(str(name)), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, 'big') >> 1 for digest in digests])


def labelled_samples(data_samples: Sequence[BaseDataElement],
                     labels: Tensor) -> list[RetrievalDataSample]:
    """New samples of the same identity, with these numbers ``(B,)`` in the place of classes."""
    return [RetrievalDataSample(metainfo=dict(sample_id=sample_id_of(sample))).set_gt_label(label)
            for sample, label in zip(data_samples, labels, strict=True)]


@MODELS.register_module()
class SelfSupervisedRetriever(ImageToImageRetriever):
    """An image-to-image retriever that learns from views of unlabelled images.

    The pipeline makes the views (``MultiView``). Views of one image are embeddings of one class,
    those of other images of other classes, for any loss of labelled embeddings in the head:
    ``PML.NTXentLoss`` makes it SimCLR (Chen et al., ICML 2020). Labels of the samples are not
    looked at. A loss that compares two sets of views, as ``PML.VICRegLoss`` (Bardes et al., ICLR
    2022), is given the two.

    Args:
        image_encoder, prototype: as of :class:`ImageToImageRetriever`.
        head: config or module with ``loss(feats, data_samples)``, which gets a list of views
            ``(B, D)``, as ``MetricHead`` takes it.
        projector: None, or what stands between encoder and head in training alone: a config of a
            module ``(B, C) -> (B, D)``; without ``type`` of :class:`ProjectionMLP`, whose
            ``in_features`` are the encoder's ``embedding_size``. Search uses the embeddings before
            it.
        kwargs: the other arguments of :class:`ImageToImageRetriever`.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or value; the message says which.
    """

    def __init__(self, image_encoder: Any, prototype: Any = None,
                 head: dict[str, Any] | nn.Module | None = None, *,
                 projector: dict[str, Any] | list[Any] | nn.Module | None = None,
                 **kwargs: Any) -> None:
        super().__init__(image_encoder, prototype, head, **kwargs)
        self.projector = build_projector(projector, self.image_encoder)

    def loss(self, inputs: Tensor | list[Tensor], data_samples: Any) -> dict[str, Tensor]:
        """The head's losses of a batch of views.

        Args:
            inputs: a list of at least two views, each ``(B, C, H, W)`` float32, of any sizes.
            data_samples: a sample an image, with an identity; labels are not needed.

        Raises:
            ValueError: there is no head, or only one view, or a sample without an identity.
        """
        if self.head is None:
            raise ValueError('This retriever has no head, so it has no loss. Give it one, such as '
                             "head=dict(type='MetricHead', loss=dict(type='PML.NTXentLoss')).")
        if isinstance(inputs, Tensor) or len(inputs) < 2:
            raise ValueError('SelfSupervisedRetriever compares views of an image, and got one: put '
                             'MultiView(num_views=2, transforms=[…]) into the training pipeline.')
        labels = instance_labels(data_samples, len(inputs[0]))
        return self.head.loss(self.encode_views(inputs), labelled_samples(data_samples, labels))

    def encode_views(self, views: list[Tensor]) -> list[Tensor]:
        """The head's input of each view, ``(B, D)``; views of one size are encoded together."""
        encoded: list[Tensor] = []
        for _, group in groupby(views, key=lambda view: view.shape):
            same = list(group)
            embeddings = self.embed(torch.cat(same))
            if self.projector is not None:
                embeddings = self.projector(embeddings)
            encoded += embeddings.chunk(len(same))
        return encoded
