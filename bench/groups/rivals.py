"""One call of 524,288 draws against the ways people have."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import rivals
from bench.ours import Buffers, accepts, check_draws, table_call
from bench.report import Goal, Group, compared
from bench.rounds import Side, measure, threads_here
from bench.worlds import Scale, zipf_weights
from fastneg import AliasTable

TITLE = "Rivals: one call of 524,288 draws from popularity^0.75, ids only"
DRAWS = 1 << 19
_LIMIT = 2**24
# goal on two threads (on one) by rival and size
_GOALS: dict[str, dict[int, tuple[float, float]]] = {
    "vose": dict.fromkeys((10_000, 1_000_000, 10_000_000), (20.0, 10.0)),
    "torch.multinomial": {1_000_000: (150.0, 0.0), 10_000_000: (100.0, 0.0)},
    "numpy choice(p)": {1_000_000: (150.0, 0.0), 10_000_000: (100.0, 0.0)},
}
_USES_THREADS = ("torch.multinomial", "TensorFlow fixed_unigram")


def run(scale: Scale, group: Group) -> None:
    draws = min(DRAWS, scale.draws)
    for num_items in scale.sizes(10_000, 1_000_000, 10_000_000):
        _one_size(scale, group, num_items, draws)
    group.note(
        f"torch.multinomial, {_LIMIT + 1:,} categories: “{rivals.multinomial_refusal(_LIMIT + 1)}”."
    )
    group.note(
        "Everybody returns fresh memory here, ours too, except where the row says out=. vose and "
        "NumPy have one thread; their time on it is the other figure in both rows."
    )


def _rivals(group: Group, weights: Any, draws: int, size: str) -> dict[str, Any]:
    probabilities = weights / weights.sum()
    wanted: dict[str, Any] = {
        "vose": lambda: rivals.vose_call(weights, draws),
        "torch.multinomial": lambda: rivals.multinomial_call(weights, draws),
        "numpy choice(p)": lambda: rivals.choice_call(probabilities, draws),
        "numpy searchsorted(cdf)": lambda: rivals.searchsorted_call(probabilities, draws),
        "TensorFlow fixed_unigram": lambda: rivals.unigram_call(weights, draws),
    }
    calls = {}
    for name, make in wanted.items():
        try:
            if name.startswith("TensorFlow") and len(weights) > 10_000:
                continue  # the list of unigrams travels with every call
            calls[name] = make()
        except rivals.MissingError as missing:
            group.skip(f"against {name}", str(missing), size)
    return calls


def _one_size(scale: Scale, group: Group, num_items: int, draws: int) -> None:
    size, threads = f"{num_items:,} items", threads_here()
    weights = zipf_weights(num_items)
    table, buffers = AliasTable(weights), Buffers(draws)
    calls = _rivals(group, weights, draws, size)
    ours: dict[str, Any] = {"ids": lambda: table.draw(draws, row=0)}
    if accepts(table.draw, "out"):
        ours["ids, out="] = table_call(table, draws, buffers, log_q=False)
    check_draws(table.draw(draws, row=0).numpy(), weights)
    for call in calls.values():
        check_draws(np.asarray(call()), weights)
    del weights
    sides = [Side(name, call, draws, t) for name, call in ours.items() for t in threads]
    for name, call in calls.items():
        many = threads if name in _USES_THREADS else (1,)
        sides += [Side(name, call, draws, t) for t in many]
    timing = measure(sides, rounds=scale.few(0.35))
    for name in calls:
        for t in threads:
            other = t if name in _USES_THREADS else 1
            two, one = _GOALS.get(name, {}).get(num_items, (0.0, 0.0))
            bound = two if t == 2 else one
            for what in ours:
                group.add(
                    compared(
                        what,
                        size,
                        t,
                        timing.figure(what, t),
                        timing.figure(name, other),
                        timing.ratio(name, what, other, t),
                        against=name + (f", {other} threads" if other > 1 else ""),
                        goal=Goal(bound) if bound and what == "ids" else None,
                    )
                )
