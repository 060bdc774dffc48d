"""Bilateral softmax: a log-expectation-exp over a user's positives as well as over negatives.

Conventions as in ``losses``: masks are True where a column is a known positive of the row's user;
a row with no negative left has loss 0 and no gradient; 16-bit scores are worked on in float32.

Shape suffixes: B rows (examples), C columns (negatives), G users of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastneg import checks
from fastneg.errors import FastnegTypeError
from fastneg.training.corrections import NOTHING, UnmaskedLogSumExp, log_unmasked, weighted_mean
from fastneg.training.loss_checks import (
    check_mask,
    check_matrix,
    check_one_device,
    check_temperature,
    check_vector,
    say,
)

__all__ = ["bilateral_softmax_loss"]


def bilateral_softmax_loss(
    positive_scores_B: Tensor,
    negative_scores_BC: Tensor,
    *,
    users_B: Tensor | None = None,
    mask_BC: Tensor | None = None,
    positive_temperature: float = 1.0,
    temperature: float = 1.0,
    negative_weight: float = 1.0,
    row_weights_B: Tensor | None = None,
) -> Tensor:
    """Bilateral softmax loss, BSL (Wu et al. 2024), its equation over the users of a batch.

    The paper's loss of a user is ``-t1 log E_p[exp(s_p / t1)] + t2 log E_j[exp(s_j / t2)]``, the
    first expectation over the user's positives, the second over negatives. Here E_p is the
    (weighted) mean over the batch's rows of the same user, E_j the mean over a row's unmasked
    negatives, each row's own or shared by all; and the loss is the weighted mean over rows of::

        -t1 * log(exp(positive_scores_B[users_B == users_B[b]] / t1).mean())
        + w * t2 * log(exp(negative_scores_BC[b] / t2).mean())

    (so a user with two rows counts twice, as in the ``multi`` mode of the authors' program). With
    one row a user, or as t1 grows, the first part is the plain mean of -s_p, and for w = 1 the loss
    is t2 times the softmax loss without the positive in its denominator and with log C taken off.
    The smaller t1, the more the user's best-scored positives count, and noisy ones the less.

    w is 1 in the paper. The authors' program, in which their published figures were made, divides
    both sides by one temperature and raises the negatives' mean to a power: that power is w, with
    t1 = t2 (``-log(exp(s_p / t).mean() / exp(s_j / t).mean()^w)`` is the above over t). For
    w != 1 a number added to all scores changes the loss, which then has a lower bound for scores
    that have bounds alone, as cosines do.

    A variant in use takes each row's own positive and a sum over negatives,
    ``-log(exp(s_p / t1) / (sum_j exp(s_j / t2))^(t2 / t1))``: for one row a user and w = 1 the
    above over t1, but for a constant.

    Args:
        positive_scores_B: float [B].
        negative_scores_BC: float [B, C].
        users_B: int [B], the rows' users; those of -1 (unknown) stand each alone. None: every
            row is a user of its own.
        mask_BC: bool [B, C], True = left out.
        positive_temperature: t1, more than 0.
        temperature: t2, more than 0, divides the negatives' scores.
        negative_weight: w, 0 or more: the negatives' side against the positives'.
        row_weights_B: float [B], 0 or more (rewards): weights of the rows, in E_p too.

    Returns:
        The loss, a scalar float tensor, in units of the scores.

    Raises:
        FastnegError: for shapes that do not fit, a temperature or weight out of range.
    """
    call = "bilateral_softmax_loss"
    rows, columns = check_matrix(call, "negative_scores_BC", negative_scores_BC)
    check_vector(call, "positive_scores_B", positive_scores_B, rows)
    if columns == 0:
        checks.fail(call, f"{say('negative_scores_BC', negative_scores_BC)} has no negatives")
    check_mask(call, "mask_BC", mask_BC, rows, columns)
    check_one_device(
        call,
        negative_scores_BC=negative_scores_BC,
        positive_scores_B=positive_scores_B,
        mask_BC=mask_BC,
        users_B=users_B if isinstance(users_B, Tensor) else None,
    )
    t1 = check_temperature(call, positive_temperature, name="positive_temperature")
    t2 = check_temperature(call, temperature)
    weight = checks.as_number(negative_weight, call=call, name="negative_weight", minimum=0.0)
    z_B: Tensor
    z_B, _ = UnmaskedLogSumExp.apply(  # type: ignore[no-untyped-call]
        negative_scores_BC, None, mask_BC, t2, False
    )
    left_B = None if mask_BC is None else ~mask_BC.all(1)
    return bilateral_rows(
        z_B, positive_scores_B, log_unmasked(mask_BC, columns, False, z_B), left_B,
        users_B=users_B, positive_temperature=t1, temperature=t2, negative_weight=weight,
        row_weights_B=row_weights_B,
    )  # fmt: skip


def bilateral_rows(
    z_B: Tensor,
    positive_scores_B: Tensor,
    log_left_B: Tensor,
    left_B: Tensor | None,
    *,
    users_B: Tensor | None,
    positive_temperature: float,
    temperature: float,
    negative_weight: float,
    row_weights_B: Tensor | None,
) -> Tensor:
    """The loss from the rows' log-sum-exps ``z_B`` over scores / temperature of the negatives.

    ``log_left_B`` is the log of the number of unmasked negatives, ``left_B`` whether there are any
    (None: in every row).
    """
    call, rows = "bilateral_softmax_loss", len(z_B)
    t1, t2 = positive_temperature, temperature
    positive_B = positive_scores_B.to(z_B.dtype) / t1
    weights_B = torch.ones_like(positive_B)
    if row_weights_B is not None:
        check_vector(call, "row_weights_B", row_weights_B, rows)
        weights_B = row_weights_B.detach().to(positive_B)
    if left_B is not None:
        weights_B = weights_B * left_B
    if users_B is not None:
        positive_B = _mean_exp_by_user(positive_B, _groups(call, users_B, rows), weights_B)
    losses_B = negative_weight * t2 * (z_B - log_left_B) - t1 * positive_B
    if left_B is not None:
        losses_B = torch.where(left_B, losses_B, torch.zeros_like(losses_B))
    return weighted_mean(call, losses_B, row_weights_B)


def _groups(call: str, users_B: Tensor, rows: int) -> Tensor:
    """int64 [B], which rows belong together: numbers in 0..G-1."""
    check_vector(call, "users_B", users_B, rows)
    if users_B.dtype.is_floating_point or users_B.dtype == torch.bool:
        raise FastnegTypeError(f"{call}: {say('users_B', users_B)} is not of an integer dtype")
    alone_B = -1 - torch.arange(rows, device=users_B.device)
    users_B = torch.where(users_B < 0, alone_B, users_B.long())
    group_B: Tensor = torch.unique(users_B, return_inverse=True)[1]
    return group_B


def _mean_exp_by_user(x_B: Tensor, group_B: Tensor, weights_B: Tensor) -> Tensor:
    """[B]: log of the weighted mean of exp(x) over the rows of each row's group.

    Rows of weight 0 add nothing; a group of them alone has 0, without gradient.
    """
    counted_B = weights_B > 0
    with torch.no_grad():
        lowest_G = x_B.new_full((x_B.shape[0],), NOTHING)  # as many groups as rows at most
        x_or_lowest_B = torch.where(counted_B, x_B, lowest_G)
        top_B = lowest_G.scatter_reduce(0, group_B, x_or_lowest_B, "amax")[group_B]
    exp_B = weights_B * torch.where(counted_B, x_B - top_B, torch.zeros_like(x_B)).exp()
    zeros_G = torch.zeros_like(x_B)
    sums_B = zeros_G.index_add(0, group_B, exp_B).index_select(0, group_B)
    mass_B = zeros_G.index_add(0, group_B, weights_B).index_select(0, group_B)
    some_B = mass_B > 0
    ratio_B = torch.where(some_B, sums_B / torch.where(some_B, mass_B, 1.0), 1.0)
    return torch.where(some_B, top_B, 0.0) + ratio_B.log()
