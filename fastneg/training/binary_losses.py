"""Positive or noise: noise-contrastive estimation and generalised binary cross-entropy.

Conventions as in ``losses``: masks are True where a column is a known positive of the row's user;
a row with no negative left has loss 0 and no gradient; 16-bit scores are worked on in float32;
log-probabilities and weights get no gradient.

Shape suffixes: B rows (examples), C columns (negatives), K negatives of one row.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from fastneg import checks
from fastneg.training.corrections import (
    NOTHING,
    checked_scores,
    unmasked_counts,
    unmasked_sums,
    weighted_mean,
)
from fastneg.training.loss_checks import (
    check_negative_log_q,
    check_values,
    check_vector,
    refuse_impossible_columns,
)

__all__ = ["gbce_beta", "gbce_loss", "nce_loss"]


def nce_loss(
    positive_scores_B: Tensor,
    negative_scores_BC: Tensor,
    *,
    positive_log_q_B: Tensor,
    negative_log_q: Tensor,
    mask_BC: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Noise-contrastive estimation (Gutmann and Hyvarinen 2010; Mnih and Teh 2012).

    A classifier tells a row's positive from its k = C draws of noise by the logit
    ``s - log(k q)``: ``-log sigmoid(s_p - log(k q_p)) - sum_j log sigmoid(-(s_j - log(k q_j)))``
    for a row, then the weighted mean over rows. The same, without mask and weights, as::

        positive = positive_scores_B - positive_log_q_B - math.log(C)
        negative = negative_scores_BC - negative_log_q - math.log(C)
        (softplus(-positive) + softplus(negative).sum(1)).mean()

    Where noise comes from Q over the whole catalog and nothing is masked, its expectation is
    least at s_i = log p(i | user): scores are log-probabilities without a partition function. k
    is the number of columns, masked or not, since C draws hold an item k q_j times; items that
    are masked, or that draws exclude, are never noise, so that for them only the positive's term
    is left, which falls as their score rises, and q_p sets how soon it is small.

    Args:
        positive_scores_B: float [B].
        negative_scores_BC: float [B, C], draws with replacement.
        positive_log_q_B: float [B], log Q of the positives, unconditional.
        negative_log_q: float [C] (shared negatives, unconditional Q) or [B, C] (each row's own,
            as ``sampler.sample`` returns them).
        mask_BC: bool [B, C], True = left out.
        temperature: more than 0; divides the scores, before log(k q) is taken from them.
        row_weights_B: float [B], 0 or more (rewards).

    Returns:
        The loss, a scalar float tensor.

    Raises:
        FastnegError: for shapes that do not fit, log-probabilities above 0 or of -inf.
    """
    call = "nce_loss"
    positive_B, negative_BC = checked_scores(
        call, positive_scores_B, negative_scores_BC, mask_BC, temperature, axis="C"
    )
    rows, columns = negative_BC.shape
    check_vector(call, "positive_log_q_B", positive_log_q_B, rows)
    check_values(call, "positive_log_q_B", positive_log_q_B, log=True, possible=True)
    check_negative_log_q(call, negative_log_q, rows, columns)
    if negative_log_q.ndim == 1:
        check_values(call, "negative_log_q", negative_log_q, log=True)
    log_k = math.log(columns)
    positive_B = positive_B - (positive_log_q_B.detach().to(positive_B) + log_k)
    negative_BC.sub_(negative_log_q.detach().to(negative_BC) + log_k)
    losses_B = functional.softplus(-positive_B)
    if mask_BC is not None:
        negative_BC.masked_fill_(mask_BC, NOTHING)
    sums_B = functional.softplus(negative_BC).sum(1)
    refuse_impossible_columns(call, "negative_log_q", sums_B, negative_log_q, mask_BC)
    if mask_BC is None:
        return weighted_mean(call, losses_B + sums_B, row_weights_B)
    some_B = unmasked_counts(mask_BC, columns) > 0
    return weighted_mean(call, (losses_B + sums_B) * some_B, row_weights_B)


def gbce_beta(num_negatives: int, num_items: int, calibration: float) -> float:
    """The exponent of gBCE: ``alpha (t (1 - 1 / alpha) + 1 / alpha)``, alpha = k / (N - 1).

    The same as ``1 - t (1 - alpha)``: 1 at t = 0 (plain binary cross-entropy), alpha at t = 1
    (the score's sigmoid is calibrated: it is the probability of the item).

    Args:
        num_negatives: k, 1 to N - 1.
        num_items: N, the catalog.
        calibration: t, 0 to 1.

    Raises:
        FastnegError: for numbers out of range.
    """
    return _beta("gbce_beta", num_negatives, num_items, calibration)


def _beta(call: str, num_negatives: int, num_items: int, calibration: float) -> float:
    items = checks.as_integer(num_items, call=call, name="num_items", minimum=2)
    k = checks.as_integer(num_negatives, call=call, name="num_negatives", minimum=1)
    t = checks.as_number(calibration, call=call, name="calibration", minimum=0.0, maximum=1.0)
    if k > items - 1:
        checks.fail(
            call,
            f"num_negatives = {k} are more than the {items - 1} other items of the catalog, so "
            "the sampling rate is above 1; give fewer",
        )
    return 1.0 - t * (1.0 - k / (items - 1))


def gbce_loss(
    positive_scores_B: Tensor,
    negative_scores_BK: Tensor,
    *,
    num_items: int,
    calibration: float = 0.75,
    mask_BK: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald 2023, gSASRec).

    ``-(log(sigmoid(s_p)^beta) + sum_j log(1 - sigmoid(s_j))) / (1 + K)`` for a row with
    ``gbce_beta`` of its K columns, then the weighted mean over rows. The exponent undoes the
    overconfidence of scores trained on few negatives, and holds for **uniform** negatives alone:
    with another distribution the sampling rate alpha is not the same for all items.

    Args:
        positive_scores_B: float [B].
        negative_scores_BK: float [B, K], uniform draws; K is at most num_items - 1.
        num_items: N, the catalog that they were drawn from.
        calibration: t, 0 (plain binary cross-entropy) to 1 (fully calibrated).
        mask_BK: bool [B, K], True = left out; the sum and 1 + K count what is left, the sampling
            rate counts all K.
        temperature: more than 0; divides the scores.
        row_weights_B: float [B], 0 or more (rewards).

    Returns:
        The loss, a scalar float tensor.

    Raises:
        FastnegError: for shapes that do not fit, more negatives than other items.
    """
    call = "gbce_loss"
    positive_B, negative_BK = checked_scores(
        call, positive_scores_B, negative_scores_BK, mask_BK, temperature
    )
    beta = _beta(call, negative_BK.shape[1], num_items, calibration)
    sums_B, counts_B = unmasked_sums(functional.softplus(negative_BK), mask_BK)
    losses_B = (beta * functional.softplus(-positive_B) + sums_B) / (1 + counts_B)
    return weighted_mean(call, losses_B * (counts_B > 0), row_weights_B)
