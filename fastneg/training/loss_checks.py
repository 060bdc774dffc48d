"""Checks of what the losses are given: scores, masks, weights, log-probabilities.

Values are checked on the CPU only: reading them on an accelerator would force a synchronisation.

Shape suffixes: B rows (examples), C columns (negatives).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastneg import checks
from fastneg.errors import FastnegTypeError


def say(name: str, tensor: Tensor) -> str:
    """``scores_BC (torch.float32, shape (2, 3))``: how a tensor is named in an error."""
    return f"{name} ({tensor.dtype}, shape {tuple(tensor.shape)})"


def check_tensor(call: str, name: str, value: Any) -> None:
    """Lists and arrays are not converted: they would lose the gradient, or be on the CPU."""
    if not isinstance(value, Tensor):
        raise FastnegTypeError(f"{call}: {name} is a {type(value).__name__}; give a torch tensor")
    if value.layout is not torch.strided:
        raise FastnegTypeError(f"{call}: {say(name, value)} is of {value.layout}; give a dense one")
    if value.is_meta:
        checks.fail(call, f"{say(name, value)} is on device meta and has no values")


def check_one_device(call: str, **tensors: Tensor | None) -> None:
    """Raise where tensors that meet are on two devices; None is left out."""
    (first, beside), *others = ((name, one) for name, one in tensors.items() if one is not None)
    for name, one in others:
        if one.device != beside.device:
            checks.fail(
                call,
                f"{say(name, one)} is on {one.device}, {first} on {beside.device}; bring them to "
                "one device",
            )


def check_matrix(call: str, name: str, scores: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix of float scores, at least one row."""
    check_tensor(call, name, scores)
    if not scores.is_floating_point():
        raise FastnegTypeError(f"{call}: {say(name, scores)} is not of a float dtype")
    if scores.ndim != 2:
        checks.fail(call, f"{say(name, scores)} has {scores.ndim} dimensions; 2 expected")
    if scores.shape[0] == 0:
        checks.fail(call, f"{say(name, scores)} has no rows")
    return int(scores.shape[0]), int(scores.shape[1])


def check_vector(call: str, name: str, vector: Tensor, length: int) -> None:
    """A tensor of shape [length]."""
    check_tensor(call, name, vector)
    if vector.shape != (length,):
        checks.fail(call, f"{say(name, vector)} does not fit; give shape ({length},)")


def check_mask(call: str, name: str, mask: Tensor | None, rows: int, columns: int) -> None:
    """A bool tensor of shape [rows, columns], or None."""
    if mask is None:
        return
    check_tensor(call, name, mask)
    if mask.dtype != torch.bool:
        raise FastnegTypeError(f"{call}: {say(name, mask)} is not of dtype bool")
    if mask.shape != (rows, columns):
        checks.fail(call, f"{say(name, mask)} does not fit; give shape ({rows}, {columns})")


def check_negative_log_q(call: str, log_q: Tensor, rows: int, columns: int) -> None:
    """A tensor of shape [columns] or [rows, columns]."""
    check_tensor(call, "negative_log_q", log_q)
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


def check_values(
    call: str, name: str, values: Tensor, *, log: bool, possible: bool = False
) -> None:
    """Probabilities in 0..1 or their logs, with room for rounding; vectors on the CPU only.

    ``possible``: the log of 0 is refused too.
    """
    if not on_cpu(values):
        return
    low, high = (-math.inf, 1e-4) if log else (-1e-4, 1.0 + 1e-4)
    bad = ~((values >= low) & (values <= high))
    if possible:
        bad |= values == -math.inf
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        right = "a log-probability, 0 or less" if log else "a probability, 0 to 1"
        if possible:
            right = "a log-probability of an item that can be drawn, finite and 0 or less"
        checks.fail(call, f"{name}[{row}] = {float(values[row])} is not {right}")


def refuse_impossible_columns(
    call: str,
    name: str,
    sums_B: Tensor,
    log_q: Tensor,
    mask_BC: Tensor | None,
    *,
    own_column: bool = False,
) -> None:
    """Raise where an unmasked column has log Q = -inf (or NaN): no draw can have given it.

    Args:
        call, name: of the loss and of ``log_q``, for errors.
        sums_B: what the loss summed over each row's columns. Only where it is not finite are
            columns looked at, so that a check costs B numbers and not B x C.
        log_q, mask_BC: of the columns.
        own_column: the diagonal is no negative.

    Raises:
        FastnegError: naming the column. On the CPU only, see the module.
    """
    if not on_cpu(sums_B) or bool(sums_B.isfinite().all()):
        return
    bad = ~(log_q > -math.inf)
    rows, columns = len(sums_B), log_q.shape[-1]
    bad_BC = bad.expand(rows, columns).clone()
    if mask_BC is not None:
        bad_BC &= ~mask_BC
    if own_column:
        bad_BC.diagonal().fill_(False)
    if not bool(bad_BC.any()):
        return  # it is the scores
    row, column = (int(one) for one in bad_BC.nonzero()[0])
    place = f"{column}" if log_q.ndim == 1 else f"{row}, {column}"
    checks.fail(
        call,
        f"{name}[{place}] = {float(log_q.expand(rows, columns)[row, column])}: column {column} is "
        f"not masked in row {row}, yet its log-probability says that it is never drawn "
        f"({name}: {log_q.dtype}, shape {tuple(log_q.shape)}); give the log Q that it was drawn "
        "by, or mask it. in_batch_log_q(counts, items) names items that were never counted, and "
        "its unseen= counts them",
    )


def on_cpu(tensor: Tensor) -> bool:
    """Whether values can be checked without a synchronisation."""
    return tensor.device.type == "cpu"
