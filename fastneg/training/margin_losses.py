"""Losses with a margin: hinge (triplet) and cosine contrastive.

Conventions as in ``losses``: masks are True where a column is a known positive of the row's user;
a row with no negative left has loss 0 and no gradient; 16-bit scores are worked on in float32.
Negatives may be each row's own or shared by all rows.

Shape suffixes: B rows (examples), C columns (negatives).
"""

from __future__ import annotations

from torch import Tensor

from fastneg import checks
from fastneg.training.corrections import NOTHING, checked_scores, unmasked_counts, weighted_mean

__all__ = ["cosine_contrastive_loss", "hinge_loss"]


def hinge_loss(
    positive_scores_B: Tensor,
    negative_scores_BC: Tensor,
    *,
    margin: float,
    mask_BC: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Hinge or triplet loss: mean of ``max(0, s_j - s_p + margin)``.

    Huang et al. 2020 (Embedding-based retrieval in Facebook search) write ``max(0, D(q, d+) -
    D(q, d-) + m)`` with the distance D = 1 - cosine: the same for cosine scores. Their sum over
    triplets is here the mean over a row's unmasked negatives, then the weighted mean over rows.
    The same, without mask and weights, as::

        relu(negative_scores_BC - positive_scores_B[:, None] + margin).mean()

    Args:
        positive_scores_B: float [B].
        negative_scores_BC: float [B, C].
        margin: 0 or more, in units of the scores after the temperature.
        mask_BC: bool [B, C], True = left out.
        temperature: more than 0; divides the scores.
        row_weights_B: float [B], 0 or more (rewards).

    Returns:
        The loss, a scalar float tensor.

    Raises:
        FastnegError: for shapes that do not fit, a margin or temperature out of range.
    """
    call = "hinge_loss"
    margin = checks.as_number(margin, call=call, name="margin", minimum=0.0)
    positive_B, negative_BC = checked_scores(
        call, positive_scores_B, negative_scores_BC, mask_BC, temperature, axis="C"
    )
    sums_B, counts_B = _excess(negative_BC.add_((margin - positive_B)[:, None]), mask_BC)
    return weighted_mean(call, sums_B / counts_B.clamp(min=1), row_weights_B)


def cosine_contrastive_loss(
    positive_scores_B: Tensor,
    negative_scores_BC: Tensor,
    *,
    margin: float,
    negative_weight: float,
    mask_BC: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Cosine contrastive loss, CCL (Mao et al. 2021, SimpleX).

    ``(1 - s_p) + w / |N| sum_j max(0, s_j - m)`` for a row, N its unmasked negatives; then the
    weighted mean over rows. A negative below the margin counts for nothing. The same, without
    mask and weights, as::

        (1 - positive_scores_B).mean() + w * relu(negative_scores_BC - m).mean()

    Args:
        positive_scores_B: float [B], cosines: the loss has no lower bound for scores that have
            no upper one.
        negative_scores_BC: float [B, C], cosines.
        margin: m, -1 to 1.
        negative_weight: w, 0 or more: all negatives of a row together against its positive.
        mask_BC: bool [B, C], True = left out.
        temperature: more than 0; divides the scores (1 in the paper).
        row_weights_B: float [B], 0 or more (rewards).

    Returns:
        The loss, a scalar float tensor.

    Raises:
        FastnegError: for shapes that do not fit, a margin, weight or temperature out of range.
    """
    call = "cosine_contrastive_loss"
    margin = checks.as_number(margin, call=call, name="margin", minimum=-1.0, maximum=1.0)
    weight = checks.as_number(negative_weight, call=call, name="negative_weight", minimum=0.0)
    positive_B, negative_BC = checked_scores(
        call, positive_scores_B, negative_scores_BC, mask_BC, temperature, axis="C"
    )
    sums_B, counts_B = _excess(negative_BC.sub_(margin), mask_BC)
    losses_B = (1.0 - positive_B) + weight * sums_B / counts_B.clamp(min=1)
    return weighted_mean(call, losses_B * (counts_B > 0), row_weights_B)


def _excess(x_BC: Tensor, mask_BC: Tensor | None) -> tuple[Tensor, Tensor]:
    """Per row the sum of what is above 0 in unmasked columns and their number; x is used up."""
    if mask_BC is None:
        return x_BC.relu_().sum(1), x_BC.new_full((x_BC.shape[0],), x_BC.shape[1])
    counts_B = unmasked_counts(mask_BC, x_BC.shape[1])
    return x_BC.masked_fill_(mask_BC, NOTHING).relu_().sum(1), counts_B.to(x_BC.dtype)
