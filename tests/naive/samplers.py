"""Slow, obvious twins of the samplers: q(i|u) by its definition, over the whole catalog.

Every twin has ``q(user, excluded)``: float64 [N] that sums to 1, or all zeros where nothing is
allowed. ``user`` is a code, or None for the unconditional distribution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

Known = Mapping[int, Iterable[int]]


def _normalised(weights: np.ndarray) -> np.ndarray:
    total = math.fsum(weights)
    return weights / total if total > 0 else np.zeros(len(weights))


@dataclass(frozen=True)
class Weighted:
    """q(i|u) proportional to w_i over the items that u does not know."""

    weights: Sequence[float]
    known: Known = field(default_factory=dict)

    def q(self, user: int | None = None, excluded: Iterable[int] = ()) -> np.ndarray:
        allowed = np.array(self.weights, dtype=np.float64)
        for item in [*self.known.get(-1 if user is None else user, ()), *excluded]:
            allowed[item] = 0.0
        return _normalised(allowed)


def uniform(num_items: int, known: Known | None = None) -> Weighted:
    return Weighted([1.0] * num_items, known or {})


def popularity(
    counts: Sequence[float],
    known: Known | None = None,
    *,
    exponent: float = 0.75,
    smoothing: float = 0.0,
) -> Weighted:
    base = [count + smoothing for count in counts]
    return Weighted([x**exponent if x > 0 else 0.0 for x in base], known or {})


@dataclass(frozen=True)
class Mixed:
    """q(i|u) = sum of lambda_k q_k(i|u); parts with nothing left give their share away."""

    parts: Sequence[tuple[Any, float]]

    def q(self, user: int | None = None, excluded: Iterable[int] = ()) -> np.ndarray:
        excluded = list(excluded)
        each = [(part.q(user, excluded), weight) for part, weight in self.parts]
        alive = [(q, weight) for q, weight in each if q.sum() > 0]
        if not alive:
            return np.zeros(len(each[0][0]))
        return _normalised(sum(weight * q for q, weight in alive))


@dataclass(frozen=True)
class Listed:
    """q(i|u) = the weight of i in u's list; an id that stands there twice counts twice."""

    num_items: int
    lists: Mapping[int, Sequence[tuple[int, float]]]
    known: Known = field(default_factory=dict)
    fallback: Any = None

    def q(self, user: int | None = None, excluded: Iterable[int] = ()) -> np.ndarray:
        excluded = list(excluded)
        weights = np.zeros(self.num_items)
        for item, weight in self.lists.get(-1 if user is None else user, ()):
            if item not in excluded and item not in self.known.get(user, ()):
                weights[item] += weight
        if weights.sum() == 0 and self.fallback is not None:
            return self.fallback.q(user, excluded)
        return _normalised(weights)


def known_pairs(users: Sequence[int], items: Sequence[int]) -> dict[int, set[int]]:
    known: dict[int, set[int]] = {}
    for user, item in zip(users, items, strict=True):
        known.setdefault(int(user), set()).add(int(item))
    return known


def user_counts(known: Known, num_items: int) -> list[int]:
    return [sum(item in set(items) for items in known.values()) for item in range(num_items)]


# --- without replacement ------------------------------------------------------------------------


def ordered_law(q: np.ndarray, length: int) -> dict[tuple[int, ...], float]:
    """P(first items in this order): q_a * q_b / (1 - q_a) * q_c / (1 - q_a - q_b) ..."""
    law = {}
    for order in itertools.permutations(np.flatnonzero(q > 0).tolist(), length):
        chance, left = 1.0, 1.0
        for item in order:
            chance *= q[item] / left
            left -= q[item]
        law[order] = chance
    return law


def inclusion(q: np.ndarray, length: int) -> np.ndarray:
    """P(item is among the first ``length``), by the law of every order."""
    out = np.zeros(len(q))
    for order, chance in ordered_law(q, length).items():
        out[list(order)] += chance
    return out


def stop_time_cdf(q: np.ndarray, num_negatives: int) -> Callable[[np.ndarray], np.ndarray]:
    """P(T <= t), T the time by which more than ``num_negatives`` distinct items have arrived.

    Item i has arrived by t with probability 1 - exp(-q_i t), independently: a Poisson-binomial.
    """

    def cdf(times: np.ndarray) -> np.ndarray:
        number = np.zeros((len(q) + 1, len(times)))
        number[0] = 1.0
        for share in q:
            arrived = -np.expm1(-share * times)
            number[1:] = number[1:] * (1 - arrived) + number[:-1] * arrived
            number[0] *= 1 - arrived
        return 1.0 - number[: num_negatives + 1].sum(axis=0)

    return cdf


# --- tables and words ---------------------------------------------------------------------------


def apportion(weights: Sequence[float]) -> list[Fraction]:
    """What each weight is due of n 2^32 units, exactly: the small get 1, the rest share."""
    exact = [Fraction(float(weight)) for weight in weights]
    target = len(exact) << 32
    total = sum(exact)
    small = [0 < weight * target < total for weight in exact]
    large = sum(weight for weight, is_small in zip(exact, small, strict=True) if not is_small)
    left = target - sum(small)
    return [
        Fraction(1) if is_small else weight * left / large
        for weight, is_small in zip(exact, small, strict=True)
    ]


WORD = (1 << 64) - 1


def mix64(x: int) -> int:
    """SplitMix64 with Stafford's thirteenth finaliser, on Python ints."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def word(key: int, row: int, draw: int, attempt: int = 0) -> int:
    """The word of (key, row, draw, attempt): a row's own sequence, stepped by odd constants."""
    start = mix64((key + row * 0xA0761D6478BD642F) & WORD)
    return mix64((start + (draw + 1) * 0x9E3779B97F4A7C15 + attempt * 0xD1342543DE82EF95) & WORD)


def uniform_draw(
    num_items: int,
    excluded: Iterable[int],
    key: int,
    row: int,
    draw: int,
    *,
    attempts: int | None = None,
) -> int:
    """Any id, 16 times, until one is allowed; where half is excluded, a place among the allowed."""
    excluded = set(excluded)
    if attempts is None:
        attempts = 0 if num_items - len(excluded) < num_items / 2 else 16
    for attempt in range(attempts):
        item = (word(key, row, draw, attempt) * num_items) >> 64
        if item not in excluded:
            return item
    allowed = [item for item in range(num_items) if item not in excluded]
    return allowed[(word(key, row, draw, attempts) * len(allowed)) >> 64]


def mass_draw(masses: Mapping[int, int], w: int) -> int:
    """The id at a point of the mass: ``masses`` has the allowed ids, ascending."""
    point = (w * sum(masses.values())) >> 64
    for item, mass in masses.items():
        if point < mass:
            return item
        point -= mass
    raise AssertionError


def table_draw(
    cells: Sequence[int],
    masses: Sequence[int],
    excluded: Iterable[int],
    key: int,
    row: int,
    draw: int,
    *,
    attempts: int = 16,
) -> int:
    """Alias draws until one is allowed, ``attempts`` at most; then a point of the allowed mass."""
    excluded = set(excluded)
    for attempt in range(attempts):
        item = pick(cells, word(key, row, draw, attempt))
        if item not in excluded:
            return item
    allowed = {i: int(m) for i, m in enumerate(masses) if i not in excluded}
    return mass_draw(allowed, word(key, row, draw, attempts))


def pick(cells: Sequence[int], word: int) -> int:
    """An alias draw: t = floor(w n / 2^32) is a cell and a coin."""
    cell, coin = divmod((word * len(cells)) >> 32, 1 << 32)
    threshold, alias = divmod(int(cells[cell]), 1 << 32)
    return cell if coin < threshold else alias


def class_draw(
    cells: Sequence[int],
    spans: Sequence[tuple[int, int]],
    order: Sequence[int],
    place: int,
    salt: int,
) -> int:
    """A class by the word of a place, an item of it by the word of place ^ salt."""
    scaled = mix64(place) * len(cells)
    cell, coin = scaled >> 64, scaled & WORD
    threshold, alias = divmod(int(cells[cell]), 1 << 24)
    first, size = spans[cell if coin < threshold << 24 else alias]
    position = first + ((mix64(place ^ salt) * size) >> 64)
    return order[position] if len(order) else position


def place_of(key: int, row: int, draw: int, attempt: int = 0) -> int:
    """What ``word`` mixes."""
    start = mix64((key + row * 0xA0761D6478BD642F) & WORD)
    return (start + (draw + 1) * 0x9E3779B97F4A7C15 + attempt * 0xD1342543DE82EF95) & WORD


def cell_masses(cells: Sequence[int]) -> list[int]:
    """The mass that each index really has in a table of cells."""
    masses = [0] * len(cells)
    for index, cell in enumerate(cells):
        threshold, alias = divmod(int(cell), 1 << 32)
        masses[index] += threshold
        masses[alias] += (1 << 32) - threshold
    return masses


# --- training instances -------------------------------------------------------------------------


def train_instances(
    users: Sequence[int], items: Sequence[int], num_negatives: int, num_items: int, seed: int = 0
) -> tuple[list[int], list[int], list[int]]:
    """The well-known loop over a set of pairs."""
    rng = np.random.default_rng(seed)
    pairs = set(zip(users, items, strict=True))
    out_users, out_items, labels = [], [], []
    for user, item in zip(users, items, strict=True):
        out_users.append(user)
        out_items.append(item)
        labels.append(1)
        for _ in range(num_negatives):
            drawn = int(rng.integers(num_items))
            while (user, drawn) in pairs:
                drawn = int(rng.integers(num_items))
            out_users.append(user)
            out_items.append(drawn)
            labels.append(0)
    return out_users, out_items, labels
