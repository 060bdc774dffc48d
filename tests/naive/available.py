"""Slow, obvious twins of sampling from what was there at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.naive import samplers as naive


@dataclass(frozen=True)
class Available:
    """q(i|u, t) proportional to w_i over what was there at t and u does not know.

    ``first`` and ``last`` hold None for a time that is missing.
    """

    weights: Sequence[float]
    first: Sequence[Any]
    last: Sequence[Any]
    known: Mapping[int, Iterable[int]] = field(default_factory=dict)

    def there(self, time: Any) -> list[int]:
        return [
            item
            for item, (start, end) in enumerate(zip(self.first, self.last, strict=True))
            if start is not None and start <= time and (end is None or end >= time)
        ]

    def q(self, time: Any, user: int | None = None, excluded: Iterable[int] = ()) -> np.ndarray:
        there = self.there(time)
        weights = [w if item in there else 0.0 for item, w in enumerate(self.weights)]
        return naive.Weighted(weights, self.known).q(user, excluded)


def node_of(first_tick: int, last_tick: int) -> int:
    """The number of the range that two divides most often."""
    return max(range(first_tick, last_tick + 1), key=lambda c: c & -c)


def in_order(first: Sequence[int], last: Sequence[int], time: int) -> list[int]:
    """What is there at ``time``, as the interval tree lists it: from the root down; in a node whose
    tick has come, by descending last time, else by ascending first time; then by id.
    """
    ticks = sorted(set(first))

    def place(item: int) -> tuple[int, int, int]:
        start = ticks.index(first[item]) + 1
        node = node_of(start, sum(tick <= last[item] for tick in ticks))
        come = ticks[node - 1] <= time
        return -(node & -node), -last[item] if come else first[item], item

    there = [i for i in range(len(first)) if first[i] <= time <= last[i]]
    return sorted(there, key=place)


def draw(
    masses: Sequence[int],
    order: Sequence[int],
    excluded: Iterable[int],
    key: int,
    row: int,
    draw: int,
    attempts: int = 16,
) -> int:
    """A point of the mass of what is there, until one is allowed; then of the allowed mass."""
    excluded = set(excluded)
    everything = {item: int(masses[item]) for item in order}
    for attempt in range(attempts):
        item = naive.mass_draw(everything, naive.word(key, row, draw, attempt))
        if item not in excluded:
            return item
    allowed = {item: mass for item, mass in everything.items() if item not in excluded}
    return naive.mass_draw(allowed, naive.word(key, row, draw, attempts))
