"""Training without labels, on several views of each image."""
from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import MODELS
from .image_to_image import ImageToImageRetriever
from .views import build_projector, instance_labels, labelled_samples


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
                 head: dict | nn.Module | None = None, *,
                 projector: dict | list | nn.Module | None = None, **kwargs: Any) -> None:
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
        """What the head gets of each view, ``(B, D)``; views of one size are encoded together."""
        encoded: list[Tensor] = []
        for _, group in groupby(views, key=lambda view: view.shape):
            same = list(group)
            embeddings = self.embed(torch.cat(same))
            if self.projector is not None:
                embeddings = self.projector(embeddings)
            encoded += embeddings.chunk(len(same))
        return encoded
