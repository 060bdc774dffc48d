"""How often an item is expected among K draws: what a correction of true and drawn items needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastneg.checks import FloatArray, IntArray, fail
from fastneg.samplers.exhausted import refuse_exhausted
from fastneg.samplers.inclusion import Inclusion, classes_of

if TYPE_CHECKING:
    from fastneg.samplers.hooks import Hooks, Plan

_MOST_ITEMS = 1 << 27  # without replacement the probability of every item is computed
_KEPT = 8  # laws that a sampler keeps


def expected_counts(
    sampler: Hooks, plan: Plan, items: IntArray, width: int, call: str
) -> FloatArray:
    """float64 [B, n]: the expected number of times that each item is among ``width`` draws."""
    log_q = np.empty(items.shape, dtype=np.float64)
    if items.size == 0:
        return log_q
    sampler._log_q(plan, items, log_q, check=True)
    log_q[plan.allowed == 0] = -np.inf
    if sampler.replacement:
        return width * np.exp(log_q)
    refuse_exhausted(sampler, plan, width, call)
    return sampler._inclusion(plan, np.exp(log_q), width)


def inclusion_by_row(sampler: Hooks, plan: Plan, q: FloatArray, width: int) -> FloatArray:
    """float64 [B, n]: inclusion probabilities of items of probabilities ``q``, row by row."""
    out = np.zeros(q.shape)
    reachable = sampler._num_reachable(plan, width)
    request = plan.request
    plain = request.positives is request.times is request.extra_indptr is None
    who = request.users if plain else np.arange(len(q))
    for row in np.unique(who, return_index=True)[1].tolist():
        same = np.flatnonzero(who == who[row])
        if reachable[row] <= width:
            out[same] = q[same] > 0.0
        else:
            nobody = plain and int(who[row]) < 0
            out[same] = _law(sampler, plan, row, width, nobody=nobody)(q[same])
    return out


def _law(sampler: Hooks, plan: Plan, b: int, width: int, *, nobody: bool) -> Inclusion:
    """The inclusion probabilities of row b; those of a row without a user are cached."""
    kept = sampler._inclusions if nobody and not sampler._moves else {}
    law = kept.get(width)
    if law is None:
        row = sampler._plan(plan.request.take(np.array([b], dtype=np.int64)))
        law = Inclusion(*sampler._rates(row), width)
        if len(kept) >= _KEPT:  # another thread may do so between any two lines
            kept.clear()
        kept[width] = law
    return law


def rates_of_all(sampler: Hooks, plan: Plan) -> tuple[FloatArray, FloatArray]:
    """(probabilities, numbers of items) of what the only row of a plan may draw."""
    if sampler.num_items > _MOST_ITEMS:
        fail(
            f"{type(sampler).__name__}.expected_count",
            f"without replacement it needs the probability of each of {sampler.num_items} items; "
            f"{_MOST_ITEMS} at most",
        )
    log_q = np.empty((1, sampler.num_items), dtype=np.float64)
    everything: Any = np.arange(sampler.num_items, dtype=np.int64)[None, :]
    sampler._log_q(plan, everything, log_q, check=True)
    return classes_of(np.exp(log_q[0]))
