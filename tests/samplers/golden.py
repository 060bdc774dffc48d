"""Samplers whose first sixteen ids stand in a test: a small world that never changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastneg.interactions import Interactions
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler

NUM_USERS, NUM_ITEMS = 40, 1000


def seen() -> Interactions:
    """Some 3,000 pairs by a formula: skewed, and fixed for ever."""
    users, items = np.divmod(np.arange(NUM_USERS * NUM_ITEMS), NUM_ITEMS)
    known = (items * items + 31 * users * (items + 7)) % 997 < 400 // (1 + items // 50)
    return Interactions.from_codes(
        users[known], items[known], num_users=NUM_USERS, num_items=NUM_ITEMS
    )


def parts() -> list[tuple[Sampler, float]]:
    source = seen()
    return [(UniformSampler(source), 0.3), (PopularitySampler(source), 0.7)]


def _listed(**options: object) -> ListedSampler:
    lists = [[(7 * u + 13 * j * j) % NUM_ITEMS for j in range(u % 5)] for u in range(NUM_USERS)]
    weights = [[1.0 + j for j in range(u % 5)] for u in range(NUM_USERS)]
    return ListedSampler(
        lists, weights=weights, fallback=UniformSampler(seen()), interactions=seen(), **options
    )


def _streaming(**options: object) -> StreamingPopularitySampler:
    sampler = StreamingPopularitySampler(
        seen(), counts=seen().item_user_counts, halve_every=3000, **options
    )
    sampler.update(np.arange(5000) ** 2 % 1000)
    return sampler


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "uniform": lambda **more: UniformSampler(seen(), **more),
    "popularity": lambda **more: PopularitySampler(seen(), **more),
    "steep": lambda **more: PopularitySampler(seen(), exponent=20.0, **more),
    "mixed draw": lambda **more: MixedSampler(parts(), **more),
    "mixed quota": lambda **more: MixedSampler(parts(), mode="quota", **more),
    "listed": _listed,
    "log-uniform": lambda **more: LogUniformSampler(seen(), **more),
    "streaming": _streaming,
    "classes": lambda **more: PopularitySampler(seen(), method="classes", **more),
    "uniform distinct": lambda **more: UniformSampler(seen(), replacement=False, **more),
    "popularity distinct": lambda **more: PopularitySampler(seen(), replacement=False, **more),
    "steep distinct": lambda **more: PopularitySampler(
        seen(), exponent=20.0, replacement=False, **more
    ),
    "mixed distinct": lambda **more: MixedSampler(parts(), replacement=False, **more),
}


def sixteen(name: str) -> list[int]:
    """Four ids for users 0, 17, 30 and the unknown one, by default seed, epoch and rows."""
    if name == "alias table":
        return AliasTable(1 / np.arange(1, NUM_ITEMS + 1)).draw(16).tolist()
    return SAMPLERS[name]().sample([0, 17, 30, -1], 4).items.ravel().tolist()
