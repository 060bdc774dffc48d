"""Objects of any kind in constructors, tables and states end in one error that names the call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastneg
from fastneg.errors import FastnegError

SEEN = fastneg.Interactions.from_codes([0, 0, 1, 1, 2], [0, 1, 1, 2, 0], num_users=3, num_items=4)
ROWS = {"user": ["a", "b"], "item": ["x", "y"], "c": ["p", "q"]}
LISTS = np.array([[0, 1], [1, 2], [2, 3]])
WRONG: list[Any] = [
    object(), [[1], [2, 3]], np.zeros((2, 3)), np.array([(1, 2)], [("a", "i4"), ("b", "i4")]),
    10**6000, "\ud800", "a\0b", float("inf"), {"a": 1}, {1, 2},
]  # fmt: skip


def of_state(make: Callable[[], Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Loading a state whose entries come as arguments."""
    return lambda **state: make().load_state_dict(state), make().state_dict()


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "UniformSampler": (
        fastneg.UniformSampler, {"interactions": SEEN, "name": "n", "replacement": True},
    ),
    "UniformSampler.load_state_dict": of_state(lambda: fastneg.UniformSampler(SEEN)),
    "FrequencyEstimator.load_state_dict": of_state(lambda: fastneg.FrequencyEstimator(8)),
    "NegativeBatches.load_state_dict": of_state(
        lambda: fastneg.NegativeBatches(SEEN, batch_size=2)
    ),
    "ListedSampler": (fastneg.ListedSampler, {"lists": LISTS, "num_items": 4}),
    "TwoTower": (fastneg.TwoTower, {
        "num_users": 3, "num_items": 4, "user_features": None, "use_user_ids": True,
        "temperature_bounds": None,
    }),
    "FeatureTable": (fastneg.FeatureTable, {
        "num_rows": 2, "categorical": None, "multi": None, "numeric": None, "vectors": None,
    }),
    "read_events": (fastneg.read_events, {
        "source": ROWS, "context": ["c"], "user_column": "user", "like": None,
    }),
    "Events.of": (fastneg.Events.of, {
        "interactions": SEEN, "context": fastneg.FeatureTable(SEEN.num_rows),
    }),
    "Interactions.encode_items": (SEEN.encode_items, {"ids": [0], "unknown": "raise"}),
    "Interactions.open": (fastneg.Interactions.open, {"folder": "nowhere", "verify": True}),
}  # fmt: skip


@pytest.mark.parametrize(("call", "argument"), [(c, a) for c in CALLS for a in CALLS[c][1]])
@pytest.mark.filterwarnings("ignore")
def test_no_raw_error(call: str, argument: str) -> None:
    function, good = CALLS[call]
    for value in WRONG:
        with contextlib.suppress(FastnegError):
            function(**{**good, argument: value})
