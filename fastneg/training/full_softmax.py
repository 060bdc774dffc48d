"""The full softmax: every item of the catalog is scored, nothing is sampled.

Shape suffixes: B rows (examples), N items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg import checks
from fastneg.errors import FastnegTypeError
from fastneg.training.corrections import NOTHING, weighted_mean, working_dtype
from fastneg.training.loss_checks import (
    check_mask,
    check_matrix,
    check_one_device,
    check_temperature,
    check_vector,
    say,
)

__all__ = ["check_full_softmax_memory", "full_softmax_loss"]

# float32 scores, their scaled copy and the softmax at once, and the mask
BYTES_PER_SCORE = 13


class _FullSoftmax(torch.autograd.Function):
    """log sum_i exp(s_i / temperature) - s_p / temperature over the unmasked items of each row.

    The same as ``cross_entropy(scores / temperature, items, reduction="none")`` with one matrix
    of [B, N] kept for the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, scores_BN: Tensor, items_B1: Tensor, mask_BN: Tensor | None, temperature: float
    ) -> Tensor:
        """The loss of each row, float [B]."""
        x_BN = scores_BN.to(working_dtype(scores_BN)) * (1.0 / temperature)
        own_B1 = x_BN.gather(1, items_B1)
        if mask_BN is not None:
            x_BN.masked_fill_(mask_BN, NOTHING).scatter_(1, items_B1, own_B1)
        softmax_BN = torch.softmax(x_BN, 1)
        ctx.save_for_backward(softmax_BN, items_B1)
        ctx.temperature, ctx.dtype = temperature, scores_BN.dtype
        return x_BN.amax(1) - softmax_BN.amax(1).log() - own_B1.squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The softmax less 1 at the positive, times the row's gradient."""
        softmax_BN, items_B1 = ctx.saved_tensors
        scale_B1 = (gradients[0] / ctx.temperature)[:, None]
        gradient_BN = softmax_BN * scale_B1
        gradient_BN.scatter_add_(1, items_B1, -scale_B1)
        return gradient_BN.to(ctx.dtype), None, None, None


def full_softmax_loss(
    scores_BN: Tensor,
    items_B: Tensor,
    *,
    mask_BN: Tensor | None = None,
    temperature: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Softmax cross-entropy over the whole catalog: ``-s_p + log sum_i exp(s_i)``.

    What ``losses.softmax_loss`` estimates from a sample. Without a mask and weights the same as::

        cross_entropy(scores_BN / temperature, items_B)

    The mask decides about the user's other known positives. With it the positive competes with
    itself and what the user does not know, as in every sampled loss here, whose draws leave known
    positives out: the sampled losses tend to this one as their draws grow. Without it the user's
    positives compete with each other too (the multinomial likelihood of Covington et al. 2016 and
    Liang et al. 2018).

    Args:
        scores_BN: float [B, N], all items in the order of their codes.
        items_B: int64 [B], the positives' codes.
        mask_BN: bool [B, N], True = left out (``interactions.positive_mask``); the row's own
            positive never is.
        temperature: more than 0; divides the scores.
        row_weights_B: float [B], 0 or more (rewards).

    Returns:
        The loss, a scalar float tensor; a row with nothing left but its positive has loss 0 and
        no gradient. 16-bit scores are worked on in float32.

    Raises:
        FastnegError: for shapes that do not fit, codes out of range.
    """
    call = "full_softmax_loss"
    rows, num_items = check_matrix(call, "scores_BN", scores_BN)
    check_vector(call, "items_B", items_B, rows)
    if items_B.dtype != torch.int64:
        raise FastnegTypeError(f"{call}: {say('items_B', items_B)} is not of dtype int64")
    if items_B.device.type == "cpu":
        checks.as_codes(items_B, num_items, call=call, name="items_B")
    check_mask(call, "mask_BN", mask_BN, rows, num_items)
    check_one_device(call, scores_BN=scores_BN, items_B=items_B, mask_BN=mask_BN)
    number = check_temperature(call, temperature)
    losses_B: Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        scores_BN, items_B[:, None], mask_BN, number
    )
    return weighted_mean(call, losses_B, row_weights_B)


def check_full_softmax_memory(call: str, num_rows: int, num_items: int, budget: int) -> None:
    """Raise where the scores of a batch over the whole catalog take more than a budget.

    Args:
        call: the function that was called, for the error.
        num_rows: rows of a batch.
        num_items: N.
        budget: bytes; a score takes 13 of them at the peak (``BYTES_PER_SCORE``).

    Raises:
        FastnegError: they do.
    """
    needed = num_rows * num_items * BYTES_PER_SCORE
    if needed <= budget:
        return
    fitting = budget // (num_items * BYTES_PER_SCORE)
    smaller = f"a batch_size of at most {fitting}, " if fitting else ""
    checks.fail(
        call,
        f"{num_rows} rows by all {num_items} items take {needed / 1e9:.1f} GB, over memory_budget "
        f"= {budget / 1e9:.1f} GB; give {smaller}a larger memory_budget, or loss = "
        "'sampled_softmax' with shared = true, which estimates the same",
    )
