"""The one core under the softmax losses: a masked log-sum-exp and the five correction forms.

``losses.py`` says what each form is and checks what is particular to each loss; here they are
computed, in as few passes over the [B, C] matrix of scores as can be. What all losses share stands
here too: checks of their arguments, sums over unmasked columns, the weighted mean over rows.

Shape suffixes: B rows (examples), C columns (negatives).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg import checks
from fastneg.training.loss_checks import (
    check_mask,
    check_matrix,
    check_one_device,
    check_temperature,
    check_values,
    check_vector,
    on_cpu,
    refuse_impossible_columns,
    say,
)

CORRECTIONS = ("expected_count", "both", "as_printed", "revised", "none")

# Stands for minus infinity: finite, so that a row with nothing left has a gradient of 0, not NaN.
NOTHING = -1e30


class UnmaskedLogSumExp(torch.autograd.Function):
    """log sum_j exp(s_j / temperature - log q_j) over the unmasked columns j of each row.

    The same as ``(scores / temperature - log_q).masked_fill(mask, -1e30).logsumexp(1)`` with a
    gradient for the scores alone, in a third of the matrices of [B, C] that this makes on the way
    there and back.

    Where ``own_column`` says that the diagonal holds the positives, it is masked, and its scores
    (over the temperature) are a second result, so that their gradient needs no matrix either.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores_BC: Tensor,
        log_q: Tensor | None,
        mask_BC: Tensor | None,
        temperature: float,
        own_column: bool,
    ) -> tuple[Tensor, Tensor]:
        """The log-sum-exp, float [B], and the diagonal, float [B] ([0] if it is not masked)."""
        dtype = working_dtype(scores_BC)
        diagonal = scores_BC.diagonal() if own_column else scores_BC.new_empty(0)
        own_B = diagonal.to(dtype) * (1.0 / temperature)
        if log_q is None:
            x_BC = scores_BC.to(dtype) * (1.0 / temperature)
        else:
            x_BC = torch.add(-log_q.to(dtype), scores_BC.to(dtype), alpha=1.0 / temperature)
        if mask_BC is not None:
            x_BC.masked_fill_(mask_BC, NOTHING)
        if own_column:
            x_BC.diagonal().fill_(NOTHING)
        # One fused pass; ``exp`` alone takes five times as long where cells are masked, since the
        # vector library treats every result that underflows as an exception.
        softmax_BC = torch.softmax(x_BC, 1)
        ctx.save_for_backward(softmax_BC)
        ctx.temperature, ctx.own_column, ctx.dtype = temperature, own_column, scores_BC.dtype
        return x_BC.amax(1) - softmax_BC.amax(1).log(), own_B

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The softmax over the unmasked columns, times the row's gradient."""
        (softmax_BC,) = ctx.saved_tensors
        gradient_BC = softmax_BC * (gradients[0] / ctx.temperature)[:, None]
        if ctx.own_column:  # 0 or, in a row with nothing left, 1 times a gradient of 0 so far
            gradient_BC.diagonal().copy_(gradients[1] / ctx.temperature)
        return gradient_BC.to(ctx.dtype), None, None, None, None


def corrected_loss(
    call: str,
    positive_scores_B: Tensor | None,
    scores_BC: Tensor,
    log_q: Tensor | None,
    positive_log_q_B: Tensor | None,
    masked_mass_B: Tensor | None,
    mask_BC: Tensor | None,
    correction: str,
    temperature: float,
    row_weights_B: Tensor | None,
    *,
    names: tuple[str, str],
    replacement: bool = True,
    excludes_positive: bool = False,
) -> Tensor:
    """The weighted mean over rows of one of the five forms, a scalar.

    The arguments are those of the public losses, ``call`` the name of the one that was called,
    for errors, and ``names`` those that it has for ``log_q`` and ``mask_BC``. No
    ``positive_scores_B``: the diagonal of ``scores_BC`` holds the positives and is no negative.
    ``excludes_positive``: ``log_q`` are conditional on not drawing the positive, so that
    ``"revised"`` has Q_p = 0 where ``positive_log_q_B`` is not given.
    """
    own_column = positive_scores_B is None
    correction = checks.as_choice(correction, CORRECTIONS, call=call, name="correction")
    replacement = checks.as_flag(replacement, call=call, name="replacement")
    rows, columns = scores_BC.shape
    check_mask(call, names[1], mask_BC, rows, columns)
    _check(
        call, rows, log_q, names[0], positive_log_q_B, masked_mass_B, correction,
        needs_positive=correction == "both" or (correction == "revised" and not excludes_positive),
    )  # fmt: skip
    temperature = check_temperature(call, temperature)
    if correction == "none":
        log_q = None
    more = {"positive_scores_B": positive_scores_B, names[0]: log_q, names[1]: mask_BC}
    check_one_device(call, **{"scores": scores_BC, **more})
    z_B: Tensor
    z_B, positive_B = UnmaskedLogSumExp.apply(  # type: ignore[no-untyped-call]
        scores_BC, log_q, mask_BC, temperature, own_column
    )
    if positive_scores_B is not None:
        positive_B = positive_scores_B.to(z_B.dtype) / temperature
    if log_q is not None:
        refuse_impossible_columns(call, names[0], z_B, log_q, mask_BC, own_column=own_column)
    num_columns = max(1, columns - own_column)

    def log_left() -> Tensor:
        return log_unmasked(mask_BC, num_columns, own_column, z_B)

    return corrected_rows(
        call, z_B, positive_B, num_columns, log_left, positive_log_q_B, masked_mass_B, correction,
        row_weights_B, masked=mask_BC is not None, replacement=replacement,
    )  # fmt: skip


def corrected_rows(
    call: str,
    z_B: Tensor,
    positive_B: Tensor,
    num_columns: int,
    log_left: Callable[[], Tensor],
    positive_log_q_B: Tensor | None,
    masked_mass_B: Tensor | None,
    correction: str,
    row_weights_B: Tensor | None,
    *,
    masked: bool,
    replacement: bool = True,
) -> Tensor:
    """``corrected_loss`` from the rows' log-sum-exps ``z_B`` over s_j / temperature - log q_j.

    ``positive_B`` are the positives' scores over the temperature; ``log_left()`` is the log of the
    number of unmasked columns, float [B] or a scalar, 1 counted for 0; ``masked``: there is a mask.
    """
    if correction == "expected_count" and replacement:
        if masked_mass_B is None:
            z_B = z_B - math.log(num_columns)
        else:
            log_n_B = log_left()
            z_B = z_B - log_n_B + torch.log1p(-_below_one(masked_mass_B)).to(z_B)
    elif correction == "both" and positive_log_q_B is not None:
        positive_B = positive_B - positive_log_q_B.to(positive_B)
    elif correction == "revised":
        # z_B over q(j | not p), and the negatives' part of P's denominator
        denominator_B = z_B
        if replacement:
            gone_B = masked_mass_B
            if gone_B is None and positive_log_q_B is not None:
                gone_B = positive_log_q_B.double().exp()
            conditional_B = z_B
            if gone_B is not None:
                conditional_B = z_B + torch.log1p(-_below_one(gone_B)).to(z_B)
            if masked and masked_mass_B is None:
                # the mask leaves out more than the positive, by an unknown share of Q:
                # n_u Q_j / (1 - Q(masked)) is n Q_j in expectation, as in "expected_count"
                denominator_B = z_B - math.log(num_columns)
            else:
                denominator_B = conditional_B - log_left()
            z_B = conditional_B
        with torch.no_grad():
            log_p_B = positive_B - torch.logaddexp(positive_B, denominator_B)
            one_minus_p_B = -torch.expm1(log_p_B)
        return weighted_mean(call, one_minus_p_B * (z_B - positive_B), row_weights_B)
    return weighted_mean(call, torch.logaddexp(positive_B, z_B) - positive_B, row_weights_B)


def unmasked_counts(mask_BC: Tensor, num_columns: int) -> Tensor:
    """int64 [B]: ``num_columns - mask_BC.sum(1)``."""
    if mask_BC.device.type == "cpu":  # torch's sum makes a matrix of integers first
        bits = np.packbits(mask_BC.numpy(), axis=1)
        return num_columns - torch.from_numpy(np.bitwise_count(bits).sum(1, dtype=np.int64))
    return num_columns - mask_BC.sum(1)


def log_unmasked(
    mask_BC: Tensor | None, num_columns: int, own_column: bool, like: Tensor
) -> Tensor:
    """Log of n_u, with 1 for 0: such a row has no sum to correct."""
    if mask_BC is None:
        return like.new_full((), math.log(num_columns))
    counts_B = unmasked_counts(mask_BC, num_columns)
    if own_column:  # the diagonal is not among the columns counted, masked or not
        counts_B = counts_B + mask_BC.diagonal()
    return counts_B.clamp(min=1).to(like).log()


def checked_scores(
    call: str,
    positive_scores_B: Tensor,
    negative_scores: Tensor,
    mask: Tensor | None,
    temperature: float,
    *,
    axis: str = "K",
) -> tuple[Tensor, Tensor]:
    """Copies of the scores of positives [B] and negatives [B, C], divided by the temperature.

    Checked, in the working dtype. ``axis`` is the suffix of the caller's arguments, for errors.
    """
    name = f"negative_scores_B{axis}"
    rows, columns = check_matrix(call, name, negative_scores)
    check_vector(call, "positive_scores_B", positive_scores_B, rows)
    if columns == 0:
        checks.fail(call, f"{say(name, negative_scores)} has no negatives")
    check_mask(call, f"mask_B{axis}", mask, rows, columns)
    more = {"positive_scores_B": positive_scores_B, f"mask_B{axis}": mask}
    check_one_device(call, **{name: negative_scores, **more})
    scale = 1.0 / check_temperature(call, temperature)
    dtype = working_dtype(negative_scores)
    return positive_scores_B.to(dtype) * scale, negative_scores.to(dtype) * scale


def unmasked_sums(losses_BC: Tensor, mask_BC: Tensor | None) -> tuple[Tensor, Tensor]:
    """Per row the sum of the unmasked entries and their number."""
    if mask_BC is None:
        count_B = losses_BC.new_full((losses_BC.shape[0],), losses_BC.shape[1])
        return losses_BC.sum(1), count_B
    counts_B = unmasked_counts(mask_BC, losses_BC.shape[1])
    return losses_BC.masked_fill(mask_BC, 0.0).sum(1), counts_B.to(losses_BC.dtype)


def _below_one(mass_B: Tensor) -> Tensor:
    """A probability in float64, kept off 1, where nothing is left and no column unmasked."""
    return mass_B.detach().double().clamp(0.0, 1.0 - 1e-12)


def weighted_mean(call: str, losses_B: Tensor, row_weights_B: Tensor | None) -> Tensor:
    """sum(w l) / sum(w); the plain mean without weights; 0 (with gradients of 0) if all are 0."""
    if row_weights_B is None:
        return losses_B.mean()
    check_vector(call, "row_weights_B", row_weights_B, losses_B.shape[0])
    weights_B = row_weights_B.detach().to(losses_B)
    if on_cpu(weights_B) and not bool(((weights_B >= 0) & weights_B.isfinite()).all()):
        row = int((~((weights_B >= 0) & weights_B.isfinite())).nonzero()[0])
        checks.fail(
            call,
            f"row_weights_B[{row}] = {float(weights_B[row])} is not a weight; give finite numbers, "
            "0 or more",
        )
    total = weights_B.sum()
    return (weights_B * losses_B).sum() / torch.where(total > 0, total, torch.ones_like(total))


def working_dtype(scores: Tensor) -> torch.dtype:
    """float64 stays, everything else is worked on in float32."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def _check(
    call: str,
    rows: int,
    log_q: Tensor | None,
    name: str,
    positive_log_q_B: Tensor | None,
    masked_mass_B: Tensor | None,
    correction: str,
    *,
    needs_positive: bool,
) -> None:
    checks.as_choice(correction, CORRECTIONS, call=call, name="correction")
    if correction != "none" and log_q is None:
        checks.fail(
            call,
            f'correction="{correction}" needs the log-probabilities of the negatives ({name})',
        )
    if needs_positive and positive_log_q_B is None:
        checks.fail(call, f'correction="{correction}" needs positive_log_q_B')
    if positive_log_q_B is not None:
        check_vector(call, "positive_log_q_B", positive_log_q_B, rows)
        possible = correction == "both"  # the only form that takes it from the positive's score
        check_values(call, "positive_log_q_B", positive_log_q_B, log=True, possible=possible)
    if masked_mass_B is not None:
        check_vector(call, "masked_mass_B", masked_mass_B, rows)
        check_values(call, "masked_mass_B", masked_mass_B, log=False)
    if log_q is not None and log_q.ndim == 1:
        check_values(call, name, log_q, log=True)
