"""Losses over positives and sampled negatives, with the correction for how they were sampled.

Pure functions of tensors. Every softmax loss here is, for a row with the positive's score s_p and
negatives j, ``logaddexp(p, z) - p`` with ``z`` a log-sum-exp over the row's unmasked negatives;
the correction decides what is taken from each score first:

====================  =========================================================================
``"expected_count"``  s_p against s_j - log(n_u q_j), with n_u the unmasked negatives of the row
                      and q_j = Q_j / (1 - Q(masked)): the expected number of times that j stands
                      among them. The sum's expectation is the full softmax's denominator.
``"both"``            s - log Q on every column, the positive's too (Yi et al. 2019).
``"as_printed"``      e^{s_p} + sum_j e^{s_j - log Q_j} (Yang et al. 2020, equation 5): the
                      negatives weigh n times what they should.
``"revised"``         -stopgrad(1 - P) [s_p - logsumexp_j(s_j - log q(j | not p))] with
                      q(j | not p) = Q_j / (1 - Q_p) and P the softmax of
                      [s_p, s_j - log(n_u q(j | not p))] at the positive (Khrylchenko et al. 2025).
                      Where a mask leaves out other items than the positive, P takes what it leaves
                      out of Q into account as "expected_count" does: 1 / P is the full softmax's
                      in expectation.
``"none"``            the scores as they are.
====================  =========================================================================

Masks are True where a column is a known positive of the row's user: left out. A row with no
negative left has loss 0 and no gradient. Scores are divided by the temperature first; 16-bit
scores are worked on in float32. Weights, log-probabilities and masses get no gradient.

Other losses, with the same conventions: ``binary_losses`` (NCE, gBCE), ``margin_losses`` (hinge,
cosine contrastive), ``bilateral_softmax``, ``full_softmax``.

Shape suffixes: B rows (examples), C columns (shared negatives), K negatives of one row.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fastneg import checks
from fastneg.training.corrections import (
    CORRECTIONS,
    checked_scores,
    corrected_loss,
    unmasked_sums,
    weighted_mean,
)
from fastneg.training.log_q import in_batch_log_q, mixed_log_q, positive_mass
from fastneg.training.loss_checks import check_matrix, check_negative_log_q, check_vector, say

__all__ = [
    "CORRECTIONS",
    "bce_loss",
    "bpr_loss",
    "in_batch_log_q",
    "in_batch_softmax_loss",
    "mixed_log_q",
    "mixed_negative_loss",
    "positive_mass",
    "softmax_loss",
]


def softmax_loss(
    positive_scores_B: Tensor,
    negative_scores_BC: Tensor,
    *,
    negative_log_q: Tensor | None = None,
    positive_log_q_B: Tensor | None = None,
    masked_mass_B: Tensor | None = None,
    mask_BC: Tensor | None = None,
    correction: str = "expected_count",
    replacement: bool = True,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Sampled softmax: one positive a row against negatives of its own or shared by all rows.

    For ``correction="expected_count"``, no mask and draws with replacement, the same as::

        logits = torch.cat([positive_scores_B[:, None],
                            negative_scores_BC - negative_log_q - math.log(C)], 1)
        cross_entropy(logits, zeros(B))

    Args:
        positive_scores_B: float [B].
        negative_scores_BC: float [B, C].
        negative_log_q: float [C] (shared negatives, unconditional Q) or [B, C] (each row's own,
            as ``sampler.sample`` returns them); needed by all corrections but ``"none"``.
        positive_log_q_B: float [B], log Q of the positives; needed by ``"both"``, and by
            ``"revised"`` with shared negatives. None for ``"revised"`` with log-probabilities of
            shape [B, C] means Q_p = 0: draws that exclude the positive already. Draws of a row's
            own that may be its positive are masked where they are, with Q_p as
            ``masked_mass_B``.
        masked_mass_B: float [B] in 0..1, Q(masked): how much of Q, over the whole catalog, lies
            on items that the row's mask leaves out wherever they come up (``positive_mass``).
            Given draws that are independent and alike, the sum is then exact in expectation for
            every number n_u >= 1 of unmasked negatives. None: 1 - Q(masked) is estimated by the
            share of the row's columns that are unmasked, n_u / C, so that n_u q_j = C Q_j; this
            is exact in expectation over all draws, with any mask, and for columns of several
            sources, with more variance where the mass is large.
            ``"revised"`` takes it in place of Q_p; without it, a mask makes its P (not its
            q(j | not p)) count n_u q_j as C Q_j. The other corrections do not use it.
        mask_BC: bool [B, C], True = left out.
        correction: one of ``CORRECTIONS``.
        replacement: False says that the negatives were drawn without replacement and that
            ``negative_log_q`` are logs of inclusion probabilities: these are expected counts
            already, so no n and no mass enters ``"expected_count"`` and ``"revised"``.
        temperature: more than 0; divides the scores before the correction.
        row_weights_B: float [B], 0 or more (rewards). The loss is the weighted mean over rows,
            0 where all weights are 0.

    Returns:
        The loss, a scalar float tensor.

    Raises:
        FastnegError: for shapes that do not fit, an unknown correction, a missing argument, an
            unmasked column of log Q = -inf (on the CPU: elsewhere values are not looked at, and
            the loss is NaN).
    """
    call = "softmax_loss"
    rows, columns = check_matrix(call, "negative_scores_BC", negative_scores_BC)
    check_vector(call, "positive_scores_B", positive_scores_B, rows)
    if columns == 0:
        checks.fail(call, f"{say('negative_scores_BC', negative_scores_BC)} has no negatives")
    if negative_log_q is not None:
        check_negative_log_q(call, negative_log_q, rows, columns)
    own = negative_log_q is not None and negative_log_q.ndim == 2
    return corrected_loss(
        call, positive_scores_B, negative_scores_BC, negative_log_q, positive_log_q_B,
        masked_mass_B, mask_BC, correction, temperature, row_weights_B,
        names=("negative_log_q", "mask_BC"), replacement=replacement, excludes_positive=own,
    )  # fmt: skip


def in_batch_softmax_loss(
    scores_BB: Tensor,
    *,
    log_q_B: Tensor | None = None,
    masked_mass_B: Tensor | None = None,
    mask_BB: Tensor | None = None,
    correction: str = "expected_count",
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """In-batch softmax: the other rows' positives are a row's negatives.

    Args:
        scores_BB: float [B, B], row i's query against row j's item; the diagonal holds the
            positives and is never a negative, whatever the mask says of it.
        log_q_B: float [B], log of each column's item's frequency as the loader serves it
            (``in_batch_log_q``); needed by all corrections but ``"none"``.
        masked_mass_B: float [B], the share of served rows whose item is a known positive of row
            i's user; None estimates it from the columns, as in ``softmax_loss``.
        mask_BB: bool [B, B], ``interactions.positive_mask(users, items)``. Without it, other rows
            with the same item count as negatives.
        correction: one of ``CORRECTIONS``; a row has n = B - 1 columns.
        temperature: more than 0; divides the scores before the correction.
        row_weights_B: float [B], 0 or more (rewards).

    Raises:
        FastnegError: as ``softmax_loss``.
    """
    call = "in_batch_softmax_loss"
    rows, columns = check_matrix(call, "scores_BB", scores_BB)
    if rows != columns:
        checks.fail(call, f"{say('scores_BB', scores_BB)} is not square: one column a row")
    if log_q_B is not None:
        check_vector(call, "log_q_B", log_q_B, rows)
    return corrected_loss(
        call, None, scores_BB, log_q_B, log_q_B, masked_mass_B, mask_BB, correction, temperature,
        row_weights_B, names=("log_q_B", "mask_BB"),
    )  # fmt: skip


def mixed_negative_loss(
    scores_BC: Tensor,
    *,
    log_q_C: Tensor | None = None,
    masked_mass_B: Tensor | None = None,
    mask_BC: Tensor | None = None,
    correction: str = "expected_count",
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Mixed negative sampling (Yang et al. 2020): B in-batch columns, then B' uniform ones.

    Args:
        scores_BC: float [B, B + B'], the diagonal of the first B columns holds the positives.
        log_q_C: float [B + B'], log Q* (``mixed_log_q``) of each column's item.
        masked_mass_B: float [B], the Q*-mass of the known positives of row i's user. As the two
            kinds of columns come in fixed numbers, not as draws from Q*, it is exact only to
            order 1 / C here; None (see ``softmax_loss``) is exact.
        mask_BC: bool [B, B + B'], True where a column is a known positive of row i's user.
        correction: one of ``CORRECTIONS``; a row has n = B + B' - 1 columns.
        temperature: more than 0; divides the scores before the correction.
        row_weights_B: float [B], 0 or more (rewards).

    Raises:
        FastnegError: as ``softmax_loss``.
    """
    call = "mixed_negative_loss"
    rows, columns = check_matrix(call, "scores_BC", scores_BC)
    if columns < rows:
        checks.fail(
            call,
            f"{say('scores_BC', scores_BC)} has fewer columns than rows; give the B in-batch "
            "columns first, then the B' others",
        )
    if log_q_C is not None:
        check_vector(call, "log_q_C", log_q_C, columns)
    positive_log_q_B = None if log_q_C is None else log_q_C[:rows]
    return corrected_loss(
        call, None, scores_BC, log_q_C, positive_log_q_B, masked_mass_B, mask_BC, correction,
        temperature, row_weights_B, names=("log_q_C", "mask_BC"),
    )  # fmt: skip


def bpr_loss(
    positive_scores_B: Tensor,
    negative_scores_BK: Tensor,
    *,
    mask_BK: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): mean of ``-log sigmoid(s_p - s_j)``.

    The mean over a row's unmasked negatives, then the weighted mean over rows; a row with none
    left has loss 0.

    Args:
        positive_scores_B: float [B].
        negative_scores_BK: float [B, K].
        mask_BK: bool [B, K], True = left out.
        temperature: more than 0; divides the scores.
        row_weights_B: float [B], 0 or more.

    Raises:
        FastnegError: for shapes that do not fit.
    """
    positive_B, negative_BK = checked_scores(
        "bpr_loss", positive_scores_B, negative_scores_BK, mask_BK, temperature
    )
    losses_BK = functional.softplus(negative_BK - positive_B[:, None])
    sums_B, counts_B = unmasked_sums(losses_BK, mask_BK)
    return weighted_mean("bpr_loss", sums_B / counts_B.clamp(min=1), row_weights_B)


def bce_loss(
    positive_scores_B: Tensor,
    negative_scores_BK: Tensor,
    *,
    mask_BK: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy over a row's 1 + K instances (He et al. 2017), labels 1, 0, ..., 0.

    ``(softplus(-s_p) + sum_j softplus(s_j)) / (1 + K)`` for a row, K counting unmasked negatives;
    then the weighted mean over rows. A row with no negative left has loss 0, as in every loss
    here.

    Args:
        positive_scores_B: float [B].
        negative_scores_BK: float [B, K].
        mask_BK: bool [B, K], True = left out.
        temperature: more than 0; divides the scores.
        row_weights_B: float [B], 0 or more.

    Raises:
        FastnegError: for shapes that do not fit.
    """
    positive_B, negative_BK = checked_scores(
        "bce_loss", positive_scores_B, negative_scores_BK, mask_BK, temperature
    )
    sums_B, counts_B = unmasked_sums(functional.softplus(negative_BK), mask_BK)
    losses_B = (functional.softplus(-positive_B) + sums_B) / (1 + counts_B)
    return weighted_mean("bce_loss", losses_B * (counts_B > 0), row_weights_B)
