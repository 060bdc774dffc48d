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
from fastneg.errors import FastnegTypeError

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
    replacement: bool = True,
    excludes_positive: bool = False,
) -> Tensor:
    """The weighted mean over rows of one of the five forms, a scalar.

    The arguments are those of the public losses, ``call`` the name of the one that was called,
    for errors. No ``positive_scores_B``: the diagonal of ``scores_BC`` holds the positives and is
    no negative. ``excludes_positive``: ``log_q`` are conditional on not drawing the positive, so
    that ``"revised"`` has Q_p = 0 where ``positive_log_q_B`` is not given.
    """
    own_column = positive_scores_B is None
    rows, columns = scores_BC.shape
    _check(
        call, rows, columns, log_q, positive_log_q_B, masked_mass_B, mask_BC, correction,
        needs_positive=correction == "both" or (correction == "revised" and not excludes_positive),
    )  # fmt: skip
    temperature = check_temperature(call, temperature)
    if correction == "none":
        log_q = None
    z_B: Tensor
    z_B, positive_B = UnmaskedLogSumExp.apply(  # type: ignore[no-untyped-call]
        scores_BC, log_q, mask_BC, temperature, own_column
    )
    if positive_scores_B is not None:
        positive_B = positive_scores_B.to(z_B.dtype) / temperature
    num_columns = max(1, columns - own_column)

    def log_left() -> Tensor:
        return log_unmasked(mask_BC, num_columns, own_column, z_B)

    return corrected_rows(
        call, z_B, positive_B, num_columns, log_left, positive_log_q_B, masked_mass_B, correction,
        row_weights_B, replacement=replacement,
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
    replacement: bool = True,
) -> Tensor:
    """``corrected_loss`` from the rows' log-sum-exps ``z_B`` over s_j / temperature - log q_j.

    ``positive_B`` are the positives' scores over the temperature; ``log_left()`` is the log of the
    number of unmasked columns, float [B] or a scalar, 1 counted for 0.
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
        log_n_B = z_B.new_zeros(())
        if replacement:
            log_n_B = log_left()
            if masked_mass_B is not None:
                z_B = z_B + torch.log1p(-_below_one(masked_mass_B)).to(z_B)
            elif positive_log_q_B is not None:
                z_B = z_B + torch.log1p(-_below_one(positive_log_q_B.double().exp())).to(z_B)
        with torch.no_grad():
            log_p_B = positive_B - torch.logaddexp(positive_B, z_B - log_n_B)
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
    if _on_cpu(weights_B) and not bool(((weights_B >= 0) & weights_B.isfinite()).all()):
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


def say(name: str, tensor: Tensor) -> str:
    """``scores_BC (torch.float32, shape (2, 3))``: how a tensor is named in an error."""
    return f"{name} ({tensor.dtype}, shape {tuple(tensor.shape)})"


def check_matrix(call: str, name: str, scores: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix of float scores, at least one row."""
    if not isinstance(scores, Tensor):
        raise FastnegTypeError(f"{call}: {name} is a {type(scores).__name__}; give a torch tensor")
    if not scores.is_floating_point():
        raise FastnegTypeError(f"{call}: {say(name, scores)} is not of a float dtype")
    if scores.ndim != 2:
        checks.fail(call, f"{say(name, scores)} has {scores.ndim} dimensions; 2 expected")
    if scores.shape[0] == 0:
        checks.fail(call, f"{say(name, scores)} has no rows")
    return int(scores.shape[0]), int(scores.shape[1])


def check_vector(call: str, name: str, vector: Tensor, length: int) -> None:
    """A tensor of shape [length]."""
    if not isinstance(vector, Tensor):
        raise FastnegTypeError(f"{call}: {name} is a {type(vector).__name__}; give a torch tensor")
    if vector.shape != (length,):
        checks.fail(call, f"{say(name, vector)} does not fit; give shape ({length},)")


def check_mask(call: str, name: str, mask: Tensor | None, rows: int, columns: int) -> None:
    """A bool tensor of shape [rows, columns], or None."""
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise FastnegTypeError(f"{call}: {say(name, mask)} is not of dtype bool")
    if mask.shape != (rows, columns):
        checks.fail(call, f"{say(name, mask)} does not fit; give shape ({rows}, {columns})")


def check_negative_log_q(call: str, log_q: Tensor, rows: int, columns: int) -> None:
    """A tensor of shape [columns] or [rows, columns]."""
    if log_q.shape not in ((columns,), (rows, columns)):
        checks.fail(
            call,
            f"{say('negative_log_q', log_q)} does not fit negatives of shape ({rows}, {columns}); "
            f"give shape ({columns},) or ({rows}, {columns})",
        )


def check_temperature(call: str, temperature: float, *, name: str = "temperature") -> float:
    """A finite number above 0."""
    number = checks.as_number(temperature, call=call, name=name)
    if number <= 0:
        checks.fail(call, f"{name} = {number} is not above 0")
    return number


def _on_cpu(tensor: Tensor) -> bool:
    """Values are looked at here only: on an accelerator a look is a wait."""
    return tensor.device.type == "cpu"


def _check(
    call: str,
    rows: int,
    columns: int,
    log_q: Tensor | None,
    positive_log_q_B: Tensor | None,
    masked_mass_B: Tensor | None,
    mask_BC: Tensor | None,
    correction: str,
    *,
    needs_positive: bool,
) -> None:
    checks.as_choice(correction, CORRECTIONS, call=call, name="correction")
    check_mask(call, "mask", mask_BC, rows, columns)
    if correction != "none" and log_q is None:
        checks.fail(
            call, f'correction="{correction}" needs the log-probabilities of the negatives (log_q)'
        )
    if needs_positive and positive_log_q_B is None:
        checks.fail(call, f'correction="{correction}" needs positive_log_q_B')
    if positive_log_q_B is not None:
        check_vector(call, "positive_log_q_B", positive_log_q_B, rows)
        check_values(call, "positive_log_q_B", positive_log_q_B, log=True)
    if masked_mass_B is not None:
        check_vector(call, "masked_mass_B", masked_mass_B, rows)
        check_values(call, "masked_mass_B", masked_mass_B, log=False)
    if log_q is not None and log_q.ndim == 1:
        check_values(call, "log_q", log_q, log=True)


def check_values(call: str, name: str, values: Tensor, *, log: bool) -> None:
    """Probabilities in 0..1 or their logs, with room for rounding; vectors on the CPU only."""
    if not _on_cpu(values):
        return
    low, high = (-math.inf, 1e-4) if log else (-1e-4, 1.0 + 1e-4)
    bad = ~((values >= low) & (values <= high))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        right = "a log-probability, 0 or less" if log else "a probability, 0 to 1"
        checks.fail(call, f"{name}[{row}] = {float(values[row])} is not {right}")
