"""The lines of QUALITY.md: data, recipe, what is tried, and the figures to hold it against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.trained import Line


@dataclass(frozen=True)
class Published(Line):
    """A line with figures to hold it against.

    Attributes:
        goal, aim: Recall@20 and NDCG@20 to reach.
        published: Recall@20 / NDCG@20, and whose.
    """

    goal: tuple[float, float] | None = None
    aim: tuple[float, float] | None = None
    published: str = ""


_LONG: dict[str, Any] = {"epochs": 200, "eval_every": 2, "patience": 5}
_PAIRWISE: dict[str, Any] = {"learning_rate": [5e-3], "l2": [1e-2, 3e-2, 1e-1]}
_SOFTMAX: dict[str, Any] = {"learning_rate": [5e-3], "temperature": [0.07, 0.1, 0.14]}

LINES = (
    Published(
        "gowalla-bpr",
        "gowalla",
        "bpr",
        _LONG,
        _PAIRWISE,
        goal=(0.160, 0.135),
        aim=(0.1627, 0.1378),
        published="0.1627 / 0.1378 (BARS)",
    ),
    Published(
        "gowalla-softmax",
        "gowalla",
        "sampled-softmax",
        _LONG,
        _SOFTMAX,
        goal=(0.180, 0.148),
        aim=(0.1882, 0.1584),
        published="0.1882 / 0.1584 (BSL), 0.1759 / 0.1395 (sampled softmax, BSL logs)",
    ),
    Published(
        "gowalla-dns-m-n",
        "gowalla",
        "dns-m-n",
        _LONG,
        _PAIRWISE,
        published="+7 % NDCG@20 over BPR's line to reach, +14 % to aim at",
    ),
    Published(
        "yelp2018-bpr",
        "yelp2018",
        "bpr",
        _LONG,
        _PAIRWISE,
        goal=(0.057, 0.046),
        aim=(0.0576, 0.0468),
        published="0.0576 / 0.0468 (BARS)",
    ),
    Published(
        "yelp2018-softmax",
        "yelp2018",
        "sampled-softmax",
        _LONG,
        _SOFTMAX,
        goal=(0.070, 0.057),
        aim=(0.0725, 0.0599),
        published="0.0725 / 0.0599 (BSL), 0.0721 / 0.0592 (sampled softmax, BSL logs)",
    ),
    Published(
        "ml-1m-softmax",
        "ml-1m",
        "sampled-softmax",
        _LONG,
        _SOFTMAX,
        goal=(0.277, 0.261),
        aim=(0.2809, 0.2681),
        published="0.2809 / 0.2662 (sampled softmax), 0.2804 / 0.2681 (BSL), both BSL logs",
    ),
)
