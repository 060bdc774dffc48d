"""The lines of QUALITY.md: data, recipe, what is tried, and the figures to hold it against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.trained import Grid, Line


@dataclass(frozen=True)
class Published(Line):
    """A line with figures to hold it against.

    Attributes:
        goal, aim: Recall@20 and NDCG@20 to reach.
        published: Recall@20 / NDCG@20, and whose.
        over: another line, whose NDCG@20 is to be exceeded by the ``gains`` to reach and to aim at.
    """

    goal: tuple[float, float] | None = None
    aim: tuple[float, float] | None = None
    published: str = ""
    over: str = ""
    gains: tuple[float, float] = (0.0, 0.0)


# Starts of ids and weights of pairwise losses as they were by default when these lines were made.
_RUN: dict[str, Any] = {"learning_rate": 1e-2, "patience": 100, "init_std": 0.125}
_PAIRS: dict[str, Any] = {**_RUN, "average_decay": 0.0}


def _epochs(epochs: int, eval_every: int, **settings: Any) -> Grid:
    """A grid of one point, trained for so many epochs."""
    one = {"epochs": epochs, "eval_every": eval_every, **settings}
    return {name: [value] for name, value in one.items()}


def _shared(number: int) -> list[dict[str, Any]]:
    """A list of one source: uniform negatives that the batch shares."""
    return [{"source": "sampled", "shared": True, "num_negatives": number, "sampler": "uniform"}]


def _best_of(candidates: int, top: int, number: int) -> list[dict[str, Any]]:
    """A list of one source: so many of the best by the model of a row's uniform candidates."""
    return [{"source": "dns", "candidates": candidates, "top": top, "num_negatives": number}]


def _bsl(epochs: int, eval_every: int, temperature: float, weight: float, **more: Any) -> Grid:
    """The loss of BSL's authors' program: one temperature, and a weight of the negatives' side."""
    return _epochs(
        epochs, eval_every, recipe="bsl", temperature=temperature,
        positive_temperature=temperature, negative_weight=weight, **more,
    )  # fmt: skip


_COSINE: dict[str, Any] = {"similarity": "cosine", "temperature": 0.1}
_SMALL_BATCHES: dict[str, Any] = {
    "learning_rate": 1e-3,
    "l2": 1e-2,
    "batch_size": 256,
    "negatives": _shared(300),
    "average_decay": 0.8,
}

# embeddings that begin small, and epochs until they no longer help
_LONG: dict[str, Any] = {"learning_rate": 2e-3, "init_std": 0.01, "average_decay": 0.9}

_FASTER: dict[str, Any] = {**_LONG, "learning_rate": 4e-3}

LINES = (
    Published(
        "gowalla-bpr",
        "gowalla",
        "bpr",
        _PAIRS,
        (
            _epochs(20, 4, learning_rate=5e-3, l2=1e-2),
            _epochs(20, 4, learning_rate=5e-3, l2=5e-2),
            _epochs(40, 8, learning_rate=1e-3, l2=1e-3),
            _epochs(20, 5, learning_rate=2e-3, l2=1e-3, negatives=_shared(256)),
            _epochs(20, 5, learning_rate=5e-3, l2=0, negatives=_shared(256), **_COSINE),
            _epochs(
                24,
                6,
                learning_rate=5e-3,
                l2=0,
                num_negatives=8,
                similarity="cosine",
                temperature=0.15,
            ),
            _epochs(20, 5, learning_rate=5e-3, l2=3e-3, num_negatives=16),
            _epochs(20, 4, learning_rate=1e-3, l2=1e-2, batch_size=256, negatives=_shared(300)),
            _epochs(16, 4, **_SMALL_BATCHES),
            _epochs(120, 10, l2=3e-3, num_negatives=4, **_LONG),
            _epochs(200, 20, l2=3e-3, num_negatives=4, **_LONG),
            _epochs(160, 20, l2=3e-3, num_negatives=4, user_balance=0.5, **_LONG),
        ),
        goal=(0.160, 0.135),
        aim=(0.1627, 0.1378),
        published="0.1627 / 0.1378 (BARS)",
    ),
    Published(
        "gowalla-softmax",
        "gowalla",
        "sampled-softmax",
        _RUN,
        (
            _epochs(16, 2, temperature=0.14),
            _epochs(16, 2, temperature=0.1),
            _epochs(16, 4, temperature=0.1, correction="none"),
            _epochs(24, 3, temperature=0.08),
            _epochs(20, 4, temperature=0.1, recipe="bsl", positive_temperature=0.12),
            _epochs(32, 4, temperature=0.08),
            _bsl(20, 4, 0.08, 1.22),
            _bsl(32, 4, 0.08, 1.22, average_decay=0.8),
        ),
        goal=(0.180, 0.148),
        aim=(0.1882, 0.1584),
        published="0.1882 / 0.1584 (BSL), 0.1759 / 0.1395 (sampled softmax, BSL logs)",
    ),
    Published(
        "gowalla-dns-m-n",
        "gowalla",
        "dns-m-n",
        _PAIRS,
        (
            _epochs(16, 4, learning_rate=2e-3, l2=1e-3),
            _epochs(60, 6, l2=3e-3, **_LONG),
            _epochs(60, 6, l2=1e-2, **_LONG),
            _epochs(60, 6, l2=3e-2, **_LONG),
            _epochs(80, 8, l2=1.5e-2, **_FASTER),
            _epochs(60, 6, l2=1.2e-2, negatives=_best_of(64, 8, 4), **_FASTER),
            _epochs(60, 6, l2=1.2e-2, negatives=_best_of(64, 4, 4), **_FASTER),
            _epochs(60, 6, l2=2e-2, negatives=_best_of(128, 4, 4), **_FASTER),
            _epochs(42, 6, l2=2e-2, negatives=_best_of(128, 4, 4), user_balance=0.5, **_FASTER),
        ),
        over="gowalla-bpr",
        gains=(0.07, 0.14),
    ),
    Published(
        "yelp2018-bpr",
        "yelp2018",
        "bpr",
        _PAIRS,
        (
            _epochs(16, 4, **_SMALL_BATCHES, init_std=0.01),
            _epochs(120, 10, l2=3e-3, num_negatives=4, **_LONG),
        ),
        goal=(0.057, 0.046),
        aim=(0.0576, 0.0468),
        published="0.0576 / 0.0468 (BARS)",
    ),
    Published(
        "yelp2018-softmax",
        "yelp2018",
        "sampled-softmax",
        _RUN,
        (
            _epochs(15, 3, temperature=0.1),
            _epochs(20, 4, temperature=0.08),
            _epochs(18, 3, temperature=0.14),
            _bsl(12, 3, 0.11, 1.1),
            _bsl(20, 4, 0.11, 1.1, average_decay=0.75),
            _bsl(24, 4, 0.11, 1.1, average_decay=0.75, user_balance=0.5),
        ),
        goal=(0.070, 0.057),
        aim=(0.0725, 0.0599),
        published="0.0725 / 0.0599 (BSL), 0.0721 / 0.0592 (sampled softmax, BSL logs)",
    ),
    Published(
        "ml-1m-softmax",
        "ml-1m",
        "sampled-softmax",
        {"patience": 100, "init_std": 0.125},
        (
            _epochs(20, 4, temperature=0.15, learning_rate=0.005),
            _epochs(24, 4, temperature=0.2, learning_rate=0.003),
            _epochs(
                20, 4, temperature=0.15, learning_rate=0.005, recipe="bsl", positive_temperature=0.2
            ),
            _bsl(20, 4, 0.17, 1.06, learning_rate=0.005),
            _epochs(24, 4, temperature=0.15, learning_rate=0.005, average_decay=0.75),
            _epochs(
                24, 4, temperature=0.15, learning_rate=0.005, average_decay=0.75, user_balance=0.5
            ),
            _epochs(
                32, 4, temperature=0.15, learning_rate=0.005, average_decay=0.8, user_balance=0.75
            ),
        ),
        goal=(0.277, 0.261),
        aim=(0.2809, 0.2681),
        published="0.2809 / 0.2662 (sampled softmax), 0.2804 / 0.2681 (BSL), both BSL logs",
    ),
)
