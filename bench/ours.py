"""Our calls as closures, so that every group asks for them in the same way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg import Negatives

Call = Callable[[], Any]


def accepts(function: Callable[..., Any], *names: str) -> bool:
    """Whether a call takes these arguments."""
    return set(names) <= set(inspect.signature(function).parameters)


class Buffers:
    """Preallocated results of one call, touched once: int64 ids, float32 log_q, int8 tags."""

    def __init__(self, *shape: int) -> None:
        self.items: npt.NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        self.log_q: npt.NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
        self.source: npt.NDArray[np.int8] = np.zeros(shape, dtype=np.int8)


def table_call(table: Any, draws: int, buffers: Buffers, *, log_q: bool) -> Call | None:
    """``AliasTable.draw`` into buffers; None where it does not know ``log_q`` or ``out``."""
    if not accepts(table.draw, "out", "log_q"):
        if log_q:
            return None

        def plain() -> None:  # fresh memory in every call, which costs more
            buffers.items = table.draw(draws, row=0).numpy()

        return plain
    out = (buffers.items, buffers.log_q) if log_q else buffers.items
    return lambda: table.draw(draws, row=0, log_q=log_q, out=out)


def shared_call(sampler: Any, draws: int, buffers: Buffers, *, log_q: bool) -> Call:
    """``sample_shared`` into buffers where it knows ``out``, else into fresh memory."""
    if not accepts(sampler.sample_shared, "out"):

        def plain() -> None:
            drawn = sampler.sample_shared(draws, row=0, log_q=log_q)
            buffers.items = drawn.items.numpy()
            if log_q:
                buffers.log_q = drawn.log_q.numpy()

        return plain
    out = Negatives(buffers.items, buffers.log_q if log_q else None, buffers.source)  # type: ignore[arg-type]
    return lambda: sampler.sample_shared(draws, row=0, log_q=log_q, out=out)


def allocates(function: Callable[..., Any]) -> str:
    """A note for a row whose call had no ``out`` to give buffers to."""
    return "" if accepts(function, "out") else "no out= here: every call allocates"


def check_draws(items: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> None:
    """Ids in range, and the more probable half of the draws as often as it should come up."""
    assert items.min() >= 0
    assert items.max() < len(weights)
    limit = np.median(weights[items[:4096]])
    heavy = weights >= limit
    _check_share(heavy[items[4096:]], float(weights[heavy].sum() / weights.sum()))


def check_counts(items: npt.NDArray[Any], counts: npt.NDArray[np.int64], exponent: float) -> None:
    """``check_draws`` for popularity^exponent of counts, class by class."""
    assert items.min() >= 0
    assert items.max() < len(counts)
    numbers = np.bincount(counts)
    values = np.flatnonzero(numbers)
    masses = numbers[values] * values.astype(np.float64) ** exponent
    limit = np.median(counts[items[:4096]])
    share = float(masses[values >= limit].sum() / masses.sum())
    _check_share(counts[items[4096:]] >= limit, share)


def _check_share(found: npt.NDArray[np.bool_], share: float) -> None:
    slack = 6 * np.sqrt(share * (1 - share) / found.size) + 1e-6
    assert abs(found.mean() - share) < slack, (found.mean(), share)


def check_log_q(buffers: Buffers, weights: npt.NDArray[np.float64]) -> None:
    """log_q of what was drawn, against the weights: 1e-4 of slack for the masses' rounding."""
    few = slice(0, 1000)
    asked = np.log(weights[buffers.items[few]] / weights.sum())
    assert np.abs(buffers.log_q[few] - asked).max() < 1e-4
