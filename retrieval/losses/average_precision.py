"""Losses that smooth the average precision of a batch."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import real_number
from ..registry import MODELS
from .pairs import Indices, cosine, pair_masks

# Positive pairs times references that are compared at once: 4 MB in float32 for each of the about
# six tensors that the backward pass keeps.
_AT_ONCE = 2 ** 20

Step = Callable[[Tensor], Tensor]


@MODELS.register_module()
class SmoothAveragePrecisionLoss(nn.Module):
    r"""Smooth-AP: one less the average precision, its steps replaced by sigmoids.

    With :math:`\sigma_\tau(x) = 1/(1 + e^{-x/\tau})` and cosines :math:`s`, for a query with
    positives :math:`P` and negatives :math:`N`

    .. math:: AP = \frac{1}{|P|} \sum_{i \in P} \frac{1 + \sum_{j \in P \setminus i}
        \sigma_\tau(s_j - s_i)}{1 + \sum_{j \in P \setminus i} \sigma_\tau(s_j - s_i)
        + \sum_{j \in N} \sigma_\tau(s_j - s_i)}

    A. Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", ECCV
    2020. Batches may be composed in any way; pytorch-metric-learning's ``SmoothAPLoss`` takes
    sorted classes of one size, and finds the positives only where that size is the number of
    classes. The loss is the mean over the queries that have a positive; where none has, it is zero.

    Only positive pairs are ranked, in pieces, so that B embeddings never become (B, B, B): 256 of
    two classes need about 30 MB. Where there is more than one piece (more than a million positive
    pairs times references), each is computed a second time in the backward pass, so that one at a
    time is kept: about a third more time.

    Args:
        temperature: :math:`\tau`, in units of the cosine.
        count_query: whether the query itself is one of its positives, with cosine 1, as in the
            authors' code; by default it is not ranked, as in an evaluation. Only within a batch.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> loss = SmoothAveragePrecisionLoss(temperature=0.01)
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> round(loss(rows, torch.tensor([0, 0, 1, 1])).item(), 4)
        0.0
    """

    needs_positives = True  # a batch without any teaches it nothing, which a head may refuse

    def __init__(self, temperature: float = 0.01, count_query: bool = False) -> None:
        super().__init__()
        real_number('temperature', temperature, above=0)
        self.temperature = temperature
        self.count_query = count_query

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Indices | None = None,
                ref_emb: Tensor | None = None, ref_labels: Tensor | None = None) -> Tensor:
        """The loss, a scalar in [0, 1].

        Args:
            embeddings: ``(B, D)`` float, of any length.
            labels: ``(B,)`` int64.
            indices_tuple: the pairs to rank, see :func:`~retrieval.losses.pairs.pair_masks`.
            ref_emb: what is ranked, ``(R, D)``, such as a memory; None: the batch. Where it holds
                the queries themselves, ``indices_tuple`` leaves them out.
            ref_labels: ``(R,)`` int64.

        Raises:
            ValueError: labels of another shape, or ``count_query`` with references.
        """
        positive, negative = pair_masks(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if self.count_query:
            if ref_emb is not None:
                raise ValueError('count_query=True counts the query within its own batch: leave '
                                 'it out where references are ranked (ref_emb, a memory).')
            positive = positive | torch.eye(len(positive), dtype=torch.bool,
                                            device=positive.device)
        precision = smoothed_precision(cosine(embeddings, ref_emb), positive, negative,
                                       self._step, self._step)
        return _mean_or_zero(1 - precision, embeddings)

    def _step(self, difference: Tensor) -> Tensor:
        return torch.sigmoid(difference / self.temperature)

    def extra_repr(self) -> str:
        """The arguments."""
        return f'temperature={self.temperature}, count_query={self.count_query}'


@MODELS.register_module()
class RoadmapLoss(nn.Module):
    r"""ROADMAP: an upper bound of the AP loss, and margins that make scores comparable.

    :math:`(1 - \lambda) L_{SupAP} + \lambda L_{calibr}`. SupAP ranks as Smooth-AP does, but the
    rank among the positives is the exact one and has no gradient, and negatives count by

    .. math:: H^-(x) = \begin{cases} \sigma_\tau(x) & x \le 0 \\ \sigma_\tau(x) + 0.5 & 0 < x \le
        \delta \\ \rho (x - \delta) + \sigma_\tau(\delta) + 0.5 & x > \delta \end{cases}

    so that a badly ranked negative keeps its gradient. The calibration of a query is
    :math:`\frac{1}{|P|} \sum_{P} [\alpha - s]_+ + \frac{1}{|N|} \sum_{N} [s - \beta]_+`. Both are
    means over the queries that have a positive; where none has, the loss is zero.

    E. Ramzi et al., "Robust and Decomposable Average Precision for Image Retrieval", NeurIPS 2021.
    The linear piece is continuous as in the paper (the authors' code adds a constant to
    :math:`\rho x`), and the calibration averages over all pairs as there (the code over those with
    a loss). Memory and time as with :class:`SmoothAveragePrecisionLoss`.

    Args:
        calibration_weight: :math:`\lambda`, in [0, 1]; 0 is SupAP alone.
        temperature: :math:`\tau`, in units of the cosine.
        slope: :math:`\rho`, ranks for each unit of the cosine.
        saturation: :math:`\delta`, the cosine from where on the bound is linear.
        positive_margin: :math:`\alpha`, the cosine that positives should reach.
        negative_margin: :math:`\beta`, the cosine that negatives should stay below.

    Raises:
        ValueError: a number outside the range that is named here, or the positive margin below
            the negative one.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> RoadmapLoss()(rows, torch.tensor([0, 0, 1, 1])).ndim
        0
    """

    needs_positives = True

    def __init__(self, calibration_weight: float = 0.5, temperature: float = 0.01,
                 slope: float = 100.0, saturation: float = 0.05, positive_margin: float = 0.9,
                 negative_margin: float = 0.6) -> None:
        super().__init__()
        real_number('temperature', temperature, above=0)
        if not 0 <= calibration_weight <= 1:
            raise ValueError(f'calibration_weight must be in [0, 1], got {calibration_weight!r}.')
        if slope < 0 or saturation < 0:
            raise ValueError(f'slope and saturation must not be negative, got {slope!r} and '
                             f'{saturation!r}.')
        if positive_margin < negative_margin:
            raise ValueError(f'positive_margin={positive_margin!r} is below negative_margin='
                             f'{negative_margin!r}: positives must be the more similar ones.')
        self.calibration_weight = calibration_weight
        self.temperature = temperature
        self.slope = slope
        self.saturation = saturation
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Indices | None = None,
                ref_emb: Tensor | None = None, ref_labels: Tensor | None = None) -> Tensor:
        """The loss, a scalar; arguments as of :class:`SmoothAveragePrecisionLoss`."""
        positive, negative = pair_masks(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        similarity = cosine(embeddings, ref_emb)
        loss = embeddings.new_zeros(())
        if self.calibration_weight < 1:
            precision = smoothed_precision(similarity, positive, negative, _exact_step,
                                           self.upper_bound)
            loss = (1 - self.calibration_weight) * _mean_or_zero(1 - precision, embeddings)
        if self.calibration_weight > 0:
            calibration = self._calibration(similarity, positive, negative)
            loss = loss + self.calibration_weight * _mean_or_zero(calibration, embeddings)
        return loss

    def upper_bound(self, difference: Tensor) -> Tensor:
        """How much a negative counts that is more similar than the positive by ``difference``."""
        smooth = torch.sigmoid(difference.clamp(max=self.saturation) / self.temperature)
        above = torch.relu(difference - self.saturation)
        return smooth + 0.5 * (difference > 0) + self.slope * above

    def _calibration(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Of each query with a positive."""
        low = torch.relu(self.positive_margin - similarity) * positive
        high = torch.relu(similarity - self.negative_margin) * negative
        each = low.sum(1) / positive.sum(1).clamp(min=1) + high.sum(1) / negative.sum(1).clamp(
            min=1)
        return each[positive.any(1)]

    def extra_repr(self) -> str:
        """The arguments."""
        return ', '.join(f'{name}={getattr(self, name)}' for name in (
            'calibration_weight', 'temperature', 'slope', 'saturation', 'positive_margin',
            'negative_margin'))


def smoothed_precision(similarity: Tensor, positive: Tensor, negative: Tensor,
                       positive_step: Step, negative_step: Step) -> Tensor:
    """The average precision of each query that has a positive, by steps of any shape.

    Args:
        similarity: ``(Q, R)``.
        positive: what is relevant, ``(Q, R)`` bool.
        negative: what is not, ``(Q, R)`` bool; what is neither is not ranked.
        positive_step: how much a reference counts that is more similar than the one that is
            ranked, as a function of the difference: 0 below, 1 above.
        negative_step: the same for negatives.

    Returns:
        ``(q,)`` of the q queries with a positive.
    """
    queries, ranked = positive.nonzero(as_tuple=True)

    def piece(similarity: Tensor, queries: Tensor, ranked: Tensor) -> Tensor:
        difference = similarity[queries] - similarity[queries, ranked][:, None]
        others = positive[queries]
        others[torch.arange(len(ranked), device=ranked.device), ranked] = False
        among = 1 + (positive_step(difference) * others).sum(1)
        return among / (among + (negative_step(difference) * negative[queries]).sum(1))

    length = max(_AT_ONCE // max(similarity.shape[1], 1), 1)
    pieces = list(zip(queries.split(length), ranked.split(length), strict=True))
    if len(pieces) > 1:
        values = [checkpoint(piece, similarity, *rows, use_reentrant=False,
                             preserve_rng_state=False) for rows in pieces]
    else:
        values = [piece(similarity, *rows) for rows in pieces]
    total = similarity.new_zeros(len(similarity)).index_add(0, queries, torch.cat(values))
    counts = positive.sum(1)
    return total[counts > 0] / counts[counts > 0]


def _exact_step(difference: Tensor) -> Tensor:
    return (difference.detach() >= 0).to(difference.dtype)


def _mean_or_zero(losses: Tensor, embeddings: Tensor) -> Tensor:
    """The mean, or a zero that still has a gradient, where no query has a positive."""
    return losses.mean() if len(losses) else embeddings.sum() * 0.0
