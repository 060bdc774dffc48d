"""Samplers and their first sixteen ids: a small world that never changes."""

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
from fastneg.samplers.request import make_request
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


# A change of any of these is a change of the stream: a line in CHANGELOG.md.
GOLDEN = {
    "uniform": [98, 930, 658, 921, 670, 295, 877, 242, 557, 992, 392, 26, 116, 849, 359, 651],
    "popularity": [70, 91, 58, 251, 853, 240, 278, 327, 111, 55, 195, 35, 428, 99, 99, 100],
    "steep": [57, 23, 24, 24, 24, 24, 24, 24, 57, 11, 22, 29, 36, 57, 4, 4],
    "mixed draw": [742, 943, 86, 875, 256, 32, 219, 86, 407, 936, 470, 611, 12, 45, 69, 0],
    "mixed quota": [841, 393, 86, 875, 256, 32, 219, 86, 407, 964, 470, 611, 12, 45, 69, 0],
    "listed": [455, 39, 925, 542, 132, 119, 119, 132, 521, 947, 580, 856, 954, 805, 884, 126],
    "log-uniform": [637, 25, 975, 51, 20, 632, 0, 887, 20, 168, 104, 0, 9, 46, 644, 173],
    "streaming": [165, 204, 704, 623, 420, 92, 916, 876, 331, 225, 649, 451, 84, 736, 196, 153],
    "classes": [980, 150, 690, 741, 656, 77, 65, 69, 670, 13, 26, 63, 196, 444, 49, 49],
    "uniform distinct": [
        98, 930, 658, 921, 670, 295, 877, 242, 557, 992, 392, 26, 116, 849, 359, 651,
    ],
    "popularity distinct": [
        70, 91, 58, 251, 853, 240, 278, 327, 111, 55, 195, 35, 428, 99, 100, 908,
    ],
    "steep distinct": [57, 23, 24, 49, 24, 29, 2, 22, 57, 11, 22, 29, 36, 57, 4, 30],
    "mixed distinct": [742, 943, 86, 875, 256, 32, 219, 86, 407, 936, 470, 611, 12, 45, 69, 0],
    "alias table": [0, 2, 893, 92, 0, 205, 731, 7, 202, 1, 44, 11, 18, 2, 229, 5],
}  # fmt: skip

USERS = [0, 17, 30, -1]  # of whom each has four ids, by default seed, epoch and rows


def sixteen(name: str) -> list[int]:
    """What ``sample`` returns."""
    if name == "alias table":
        return AliasTable(1 / np.arange(1, NUM_ITEMS + 1)).draw(16).tolist()
    return SAMPLERS[name]().sample(USERS, 4).items.ravel().tolist()


def sixteen_without_torch(name: str) -> list[int]:
    """The same, taken before ``sample`` makes tensors of it: for a Python that torch lacks."""
    sampler = SAMPLERS[name]()
    request = make_request(
        USERS, num_users=NUM_USERS, num_items=NUM_ITEMS, positives=None, times=None, exclude=None,
        call="golden",
    )  # fmt: skip
    request.rows = np.arange(len(USERS), dtype=np.int64)
    drawn = sampler._draw_request(sampler._plan(request), 4, log_q=False, buffers=None)
    return drawn[0].ravel().tolist()
