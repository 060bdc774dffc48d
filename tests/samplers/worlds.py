"""A tiny catalog with every awkward user in it, and each sampler beside its slow twin."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive

NUM_ITEMS = 12
NOTHING, ONE, SOME, ALL_BUT_ONE, ALL_BUT_TWO, POPULAR, EVERYTHING, NOT_THE_UNKNOWN = range(8)
USERS = range(8)
CROWD = 2_000  # what they know is what makes items 0 and 1 popular
COUNTS = [CROWD + 7, CROWD // 2 + 5, 40, 30, 20, 10, 9, 8, 7, 6, 1, 0]  # weights without users

_SPECIAL = {
    ONE: [3],
    SOME: [1, 2, 4, 6],
    ALL_BUT_ONE: [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11],
    ALL_BUT_TWO: [0, 1, 2, 3, 4, 7, 8, 9, 10, 11],
    POPULAR: [0, 1],
    EVERYTHING: list(range(12)),
    NOT_THE_UNKNOWN: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
}


@functools.cache
def pairs() -> tuple[np.ndarray, np.ndarray]:
    users = [user for user, items in _SPECIAL.items() for _ in items]
    items = [item for items in _SPECIAL.values() for item in items]
    for user in range(CROWD):
        known = (0, 1) if user % 2 else (0,)
        users += [len(USERS) + user] * len(known)
        items += known
    return np.array(users), np.array(items)


@functools.cache
def interactions() -> Interactions:
    """Item 11 is known to EVERYTHING and the two ALL_BUT only; no count is 0 here."""
    users, items = pairs()
    return Interactions.from_codes(users, items, num_items=NUM_ITEMS)


@functools.cache
def untouched() -> Interactions:
    """As ``interactions``, but nobody knows item 11: its count is 0."""
    users, items = pairs()
    keep = items != 11
    return Interactions.from_codes(users[keep], items[keep], num_items=NUM_ITEMS)


@functools.cache
def known(*, all_items: bool = True) -> dict[int, set[int]]:
    users, items = pairs()
    keep = items < (12 if all_items else 11)
    return naive.known_pairs(users[keep].tolist(), items[keep].tolist())


@functools.cache
def counts(*, all_items: bool = True) -> list[int]:
    return naive.user_counts(known(all_items=all_items), NUM_ITEMS)


LISTS = {
    NOTHING: [(2, 1.0), (5, 3.0), (2, 1.0), (11, 0.5)],
    ONE: [(3, 5.0), (4, 1.0), (0, 2.0)],  # 3 is known
    SOME: [(1, 1.0), (2, 1.0)],  # all known: the fallback
    ALL_BUT_ONE: [(5, 1.0), (6, 9.0)],
    POPULAR: [(7, 1e-3), (8, 1.0), (9, 1.0), (10, 0.0)],
}


def ragged(num_users: int) -> tuple[Any, Any]:
    """(indptr, items) and weights of LISTS."""
    sizes = [len(LISTS.get(user, ())) for user in range(num_users)]
    entries = [entry for user in range(num_users) for entry in LISTS.get(user, ())]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return (indptr, np.array([i for i, _ in entries])), np.array([w for _, w in entries])


@dataclass(frozen=True)
class Case:
    """A sampler and its twin."""

    name: str
    make: Callable[..., Sampler]
    twin: Callable[[], Any]

    def __str__(self) -> str:
        return self.name


def _popularity(name: str, *, all_items: bool = True, **options: float) -> Case:
    source = interactions if all_items else untouched
    return Case(
        name,
        lambda **more: PopularitySampler(source(), **options, **more),
        lambda: naive.popularity(
            counts(all_items=all_items), known(all_items=all_items), **options
        ),
    )


def _listed(fallback: Sampler | None, **options: Any) -> Sampler:
    lists, weights = ragged(interactions().num_users)
    return ListedSampler(
        lists, weights=weights, fallback=fallback, interactions=interactions(), **options
    )


def _uniform_twin() -> Any:
    return naive.uniform(NUM_ITEMS, known())


def _popular_twin() -> Any:
    return naive.popularity(counts(), known())


def _nested_parts() -> list[tuple[Sampler, float]]:
    inner = MixedSampler(
        [(UniformSampler(interactions()), 1), (PopularitySampler(interactions()), 2)]
    )
    return [(inner, 3), (_listed(None), 1), (UniformSampler(NUM_ITEMS, name="all"), 0.5)]


def _nested_twin() -> Any:
    inner = naive.Mixed([(_uniform_twin(), 1), (_popular_twin(), 2)])
    lists = naive.Listed(NUM_ITEMS, LISTS, known())
    return naive.Mixed([(inner, 3), (lists, 1), (naive.uniform(NUM_ITEMS, known()), 0.5)])


def _two_parts() -> list[tuple[Sampler, float]]:
    return [(UniformSampler(interactions()), 0.3), (PopularitySampler(interactions()), 0.7)]


def _two_twin() -> Any:
    return naive.Mixed([(_uniform_twin(), 0.3), (_popular_twin(), 0.7)])


UNIFORM = Case("uniform", lambda **more: UniformSampler(interactions(), **more), _uniform_twin)
POPULARITIES = [
    _popularity("b=0", exponent=0.0),
    _popularity("b=0 with an untouched item", exponent=0.0, all_items=False),
    _popularity("b=0.5", exponent=0.5),
    _popularity("b=0.75", exponent=0.75),
    _popularity("b=1", exponent=1.0),
    _popularity("b=1 with an untouched item", exponent=1.0, all_items=False),
    _popularity("b=2", exponent=2.0),
    _popularity("b=-1", exponent=-1.0),
    _popularity("smoothed", exponent=0.75, smoothing=2.5, all_items=False),
]
MIXED = Case("mixed draw", lambda **more: MixedSampler(_two_parts(), **more), _two_twin)
QUOTA = Case(
    "mixed quota", lambda **more: MixedSampler(_two_parts(), mode="quota", **more), _two_twin
)
NESTED = Case("nested", lambda **more: MixedSampler(_nested_parts(), **more), _nested_twin)
NESTED_QUOTA = Case(
    "nested quota",
    lambda **more: MixedSampler(_nested_parts(), mode="quota", **more),
    _nested_twin,
)
LISTED = Case(
    "listed",
    lambda **more: _listed(UniformSampler(interactions()), **more),
    lambda: naive.Listed(NUM_ITEMS, LISTS, known(), _uniform_twin()),
)
LISTED_ALONE = Case(
    "listed alone",
    lambda **more: _listed(None, **more),
    lambda: naive.Listed(NUM_ITEMS, LISTS, known()),
)
STREAMING = Case(
    "streaming",
    lambda **more: StreamingPopularitySampler(
        interactions(), counts=interactions().item_user_counts, **more
    ),
    _popular_twin,
)
LOG_UNIFORM = Case(
    "log-uniform",
    lambda **more: LogUniformSampler(interactions(), **more),
    lambda: naive.Weighted([math.log((i + 2) / (i + 1)) for i in range(NUM_ITEMS)], known()),
)
CLASSES = Case(
    "classes",
    lambda **more: PopularitySampler(interactions(), method="classes", **more),
    _popular_twin,
)
CASES = [
    STREAMING, LOG_UNIFORM, CLASSES, UNIFORM, *POPULARITIES, MIXED, QUOTA, NESTED, NESTED_QUOTA,
    LISTED, LISTED_ALONE,
]  # fmt: skip


def allowed_users(twin: Any) -> list[int]:
    """The special users (and -1, the unknown one) for whom something is left."""
    return [user for user in (*USERS, -1) if twin.q(None if user < 0 else user).sum() > 0]
