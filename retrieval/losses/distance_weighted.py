"""Negatives drawn evenly over their distance."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import MODELS
from .pairs import cosine, pair_masks


@MODELS.register_module()
class DistanceWeightedTripletMiner(nn.Module):
    r"""For each positive pair one negative, drawn by the inverse density of its distance.

    On the sphere in D dimensions distances :math:`d` have the density :math:`q(d) \propto d^{D-2}
    (1 - d^2/4)^{(D-3)/2}`; a negative is drawn with probability :math:`\propto 1/q(d)`. C.-Y. Wu
    et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017; made for the margin loss
    (``PML.MarginLoss``).

    The weights are normalised for each anchor, in logarithms: pytorch-metric-learning's
    ``DistanceWeightedMiner`` scales all of a batch by its largest weight, in a few hundred
    dimensions so far apart from the others that most anchors are left without a triplet. As in the
    authors' code an anchor whose negatives are all too far draws among all of them evenly. It
    draws from torch's generator.

    Args:
        cutoff: nearer negatives count as at this Euclidean distance of normalised embeddings.
        nonzero_loss_cutoff: negatives from this distance on are not drawn: margin losses are zero
            there.

    Raises:
        ValueError: not 0 < cutoff < nonzero_loss_cutoff < 2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> miner = DistanceWeightedTripletMiner()
        >>> anchors, positives, negatives = miner(torch.randn(4, 8), torch.tensor([0, 0, 1, 1]))
        >>> anchors.tolist(), positives.tolist()
        ([0, 1, 2, 3], [1, 0, 3, 2])
    """

    def __init__(self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4) -> None:
        super().__init__()
        if not 0 < cutoff < nonzero_loss_cutoff < 2:
            raise ValueError('Distances on the sphere are below 2: give 0 < cutoff < '
                             f'nonzero_loss_cutoff < 2, got {cutoff!r} and '
                             f'{nonzero_loss_cutoff!r}.')
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff

    @torch.no_grad()
    def probabilities(self, embeddings: Tensor, negative: Tensor,
                      ref_emb: Tensor | None = None) -> Tensor:
        """How likely each negative is drawn for each anchor, ``(B, R)``; a row without any is zero.

        Args:
            embeddings: ``(B, D)``.
            negative: the negatives, ``(B, R)`` bool.
            ref_emb: ``(R, D)``; None: the batch.
        """
        width = embeddings.shape[1]
        distance = (2 - 2 * cosine(embeddings, ref_emb)).clamp(min=0).sqrt()
        near = negative & (distance < self.nonzero_loss_cutoff)
        distance = distance.clamp(self.cutoff, self.nonzero_loss_cutoff)
        weights = (2 - width) * distance.log() - (width - 3) / 2 * (-distance.square() / 4).log1p()
        weights = weights * near.any(1, keepdim=True)  # evenly where none is near enough
        drawn = torch.where(near.any(1, keepdim=True), near, negative)
        return weights.masked_fill(~drawn, -torch.inf).softmax(1).nan_to_num(0.0)

    @torch.no_grad()
    def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None = None,
                ref_labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and negatives, each ``(n,)`` int64, of every positive pair whose
        anchor has a negative.

        Args:
            embeddings: ``(B, D)`` float, of any length.
            labels: ``(B,)`` int64.
            ref_emb: ``(R, D)``, where positives and negatives are taken from; None: the batch.
            ref_labels: ``(R,)`` int64.
        """
        positive, negative = pair_masks(embeddings, labels, None, ref_emb, ref_labels)
        positive &= negative.any(1, keepdim=True)
        anchors, positives = positive.nonzero(as_tuple=True)
        if not len(anchors):
            return anchors, positives, anchors.clone()
        chance = self.probabilities(embeddings, negative, ref_emb)
        # Drawn for each anchor as often as it has positives at most, not for each pair: a table of
        # all pairs and references would be large.
        rows, row_of = anchors.unique(return_inverse=True)
        drawn = torch.multinomial(chance[rows], int(positive.sum(1).max()), replacement=True)
        number = positive.cumsum(1)[anchors, positives] - 1
        return anchors, positives, drawn[row_of, number]

    def extra_repr(self) -> str:
        """The arguments."""
        return f'cutoff={self.cutoff}, nonzero_loss_cutoff={self.nonzero_loss_cutoff}'
