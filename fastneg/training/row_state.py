"""Validation of the saved state of ``RowAdam``'s tables, before a kernel uses it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastneg.checks import frozen
from fastneg.errors import CheckpointError
from fastneg.kernels.scan import codes_within

LAST_STEP = "last_step"  # the steps that rows are brought to, int64 [N]


def check_tables(parameters: list[Tensor], by_rows: set[int], state: dict[int, Any]) -> None:
    """Raise unless the state of every table fits it: kernels look up what its steps say.

    Args:
        parameters: of the optimizer, by number.
        by_rows: the ids of those that move by rows.
        state: of the parameters, by number.

    Raises:
        CheckpointError: moments of another shape or dtype, no whole number of steps, rows brought
            to steps that are not done yet, tables at different steps.
    """
    steps: set[float] = set()
    for number, one in enumerate(parameters):
        entries = state.get(number, {})
        if id(one) not in by_rows and LAST_STEP not in entries:
            continue
        name = f"the optimizer's state of parameter {number}"
        for moment in ("exp_avg", "exp_avg_sq"):
            held = entries.get(moment)
            if not isinstance(held, Tensor) or held.shape != one.shape or held.dtype != one.dtype:
                raise CheckpointError(f"{name}: {moment} is not {one.dtype}, {tuple(one.shape)}")
        step = entries.get("step")
        count = float(step) if isinstance(step, Tensor) and step.numel() == 1 else math.nan
        if not (0 <= count < 2**53 and count == int(count)):
            raise CheckpointError(f"{name}: step counts no steps")
        steps.add(count)
        last = entries.get(LAST_STEP)
        if last is None:
            continue
        if not (
            isinstance(last, Tensor)
            and last.dtype == torch.int64
            and last.shape == one.shape[:1]
            and codes_within(frozen(last.numpy()), 0, int(count) + 1)
        ):
            raise CheckpointError(
                f"{name}: {LAST_STEP} is not a step in 0..{int(count)} for each of {len(one)} rows"
            )
    if len(steps) > 1:
        raise CheckpointError(f"the optimizer's state: tables are at different steps {steps}")
