"""Log-probabilities of columns that no sampler drew: in-batch items, and mixtures with uniform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg import checks
from fastneg.interactions import Interactions
from fastneg.same_codes import check_interactions
from fastneg.training.loss_checks import check_tensor


def in_batch_log_q(
    item_event_counts: Any,
    items: Tensor | None = None,
    *,
    keep: Any = None,
    unseen: float | None = None,
) -> Tensor:
    """Log of each item's frequency as the loader serves it: Q of in-batch negatives.

    The same as ``torch.log(counts / counts.sum())[items]``, and with ``keep`` as
    ``torch.log(counts * keep / (counts * keep).sum())[items]``.

    A batch that holds an item which was never counted (a new one, or one of other data) has no
    log Q: give ``items``, and the error names it; or ``unseen``, and it counts as so many rows.

    Args:
        item_event_counts: [N] counts or weights, 0 or more (``interactions.item_event_counts``:
            the loader serves rows, so rows are counted, not distinct users; weights where it
            serves some rows less often).
        items: int64 [...] item codes; None for the whole catalog.
        keep: [N] the probability, 0 to 1, that the loader keeps a row of each item
            (``subsample_positives(...).keep``); None where it serves all of them.
        unseen: a number of rows, above 0, in place of a count of 0 (times keep); 1 treats an item
            that was never counted as the rarest of those that were. The log Q of all others stays
            as it is, so that the probabilities of a whole catalog sum to more than 1.

    Returns:
        float32 [...] (or [N]), -inf for an item that is never served when the whole catalog is
        asked for without ``unseen``.

    Raises:
        FastnegError: for bad counts or probabilities, codes out of range, or an item of count or
            probability 0 among ``items``, which a loader cannot have served.
    """
    call = "in_batch_log_q"
    counts = checks.as_weights(
        item_event_counts, call=call, name="item_event_counts", what="give the rows per item"
    )
    name = "item_event_counts"
    if keep is not None:
        counts = counts * as_keep(keep, counts.size, call=call)
        name = "item_event_counts * keep"
        if not counts.any():
            checks.fail(call, f"{name} is 0 for every item; a loader would serve nothing")
    total = counts.sum()
    if unseen is not None:
        floor = checks.as_number(unseen, call=call, name="unseen")
        if floor <= 0:
            checks.fail(call, f"unseen = {floor} is not above 0; give a number of rows, as in 1")
        counts = np.where(counts > 0, counts, floor)
    with np.errstate(divide="ignore"):
        table = torch.from_numpy(np.log(counts / total).astype(np.float32))
    if items is None:
        return table
    codes = checks.as_codes(items, counts.size, call=call, name="items", ndim=None)
    log_q = table[torch.from_numpy(codes)]
    if bool(torch.isinf(log_q).any()):
        position = int(torch.isinf(log_q).flatten().nonzero()[0])
        item = int(codes.ravel()[position])
        checks.fail(
            call,
            f"item {item} has count 0 in {name}, yet stands in items (position {position}); count "
            "the rows that the loader serves, or give unseen=, a count for such items",
        )
    return log_q.to(items.device) if isinstance(items, Tensor) else log_q


def as_keep(keep: Any, num_items: int, *, call: str) -> checks.FloatArray:
    """Float64 [N], probabilities of keeping a row of each item.

    Raises:
        FastnegError: another shape, a value that is not in 0..1, nothing that is ever kept.
    """
    table = checks.as_weights(keep, call=call, name="keep", what="give probabilities, 0 to 1")
    if table.size != num_items:
        checks.fail(
            call,
            f"{checks.describe('keep', table)} does not fit; give one probability for each of the "
            f"{num_items} items",
        )
    if float(table.max()) > 1:
        item = int(table.argmax())
        checks.fail(call, f"keep[{item}] = {table[item]} is no probability; give 0 to 1")
    return table


def mixed_log_q(batch_log_q: Tensor, num_batch: int, num_uniform: int, num_items: int) -> Tensor:
    """Log Q* of mixed negatives: Q* = (B Q_batch + B' / N) / (B + B') (Yang et al. 2020).

    A row has B - 1 columns of the first kind beside its own, so that with ``num_batch=B - 1`` the
    correction ``"expected_count"`` takes exactly the expected number of times that an item stands
    in the row's other columns, (B - 1) Q_batch + B' / N; with B it is off by order 1 / B.

    Args:
        batch_log_q: float [...], ``in_batch_log_q`` of the columns' items; -inf for an item that
            is never served.
        num_batch: B, or B - 1 (see above), 0 or more.
        num_uniform: B', 0 or more; one of the two is positive.
        num_items: N, 1 or more.

    Returns:
        A tensor like ``batch_log_q``.

    Raises:
        FastnegError: for numbers out of range.
    """
    call = "mixed_log_q"
    check_tensor(call, "batch_log_q", batch_log_q)
    most = 2**63 - 1
    batch = checks.as_integer(num_batch, call=call, name="num_batch", minimum=0, maximum=most)
    uniform = checks.as_integer(num_uniform, call=call, name="num_uniform", minimum=0, maximum=most)
    items = checks.as_integer(num_items, call=call, name="num_items", minimum=1, maximum=most)
    if batch + uniform == 0:
        checks.fail(call, "num_batch and num_uniform are both 0; give at least one column")
    log_batch = math.log(batch / (batch + uniform)) if batch else -math.inf
    log_uniform = math.log(uniform / (batch + uniform) / items) if uniform else -math.inf
    return torch.logaddexp(batch_log_q + log_batch, torch.full_like(batch_log_q, log_uniform))


def positive_mass(interactions: Interactions, log_q: Any) -> Tensor:
    """How much of Q lies on each user's known positives: ``masked_mass_B`` for every user.

    The same as ``[exp(log_q[interactions.positives_of(u)]).sum() for u in range(num_users)]``.

    Args:
        interactions: whose ``positive_mask`` the loss is given.
        log_q: float [N], log of the column distribution over the whole catalog.

    Returns:
        float64 [num_users]; index it with a batch's user codes (an unknown user's mass is 0).

    Raises:
        FastnegError: if ``log_q`` is not [num_items] or its probabilities do not sum to 1.
    """
    call = "positive_mass"
    check_interactions(call, interactions=interactions)
    table = checks.to_numpy(log_q, call=call, name="log_q")
    if table.shape != (interactions.num_items,):
        checks.fail(
            call,
            f"{checks.describe('log_q', table)} does not fit; give shape "
            f"({interactions.num_items},), one number an item of the catalog",
        )
    q = np.exp(table.astype(np.float64))
    total = float(q.sum())
    if not abs(total - 1.0) < 1e-3:
        checks.fail(call, f"exp(log_q) sums to {total}; give the log-probabilities of "
                    "one draw over the catalog (in_batch_log_q without unseen=)")  # fmt: skip
    running = np.concatenate([[0.0], np.cumsum(q[interactions.positive_items])])
    starts = interactions.positive_indptr
    return torch.from_numpy(running[starts[1:]] - running[starts[:-1]])
