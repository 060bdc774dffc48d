"""Further calls for the walks: functions that have no public name, states, and all arguments given.

By the public name that they are walked with: (what is called, what errors call it, arguments).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastneg
from fastneg.training.evaluation import evaluate_scores, most_popular_scores
from fastneg.training.log_q import positive_mass
from fastneg.training.rounds import train_rounds
from fastneg.training.sampled_evaluation import (
    evaluate_sampled_scores,
    freeze_sampled_candidates,
)
from tests.hostile_arguments import SUBJECTS, N, U, World

# of these calls the arguments of these names are interactions, and nothing else is taken
STRICT = {
    "evaluate", "evaluate_scores", "evaluate_events", "most_popular_scores", "positive_mass",
    "freeze_sampled_candidates", "split_by_time", "split_leave_last_out", "split_last_fraction",
    "split_random", "hold_out_validation", "NegativeBatches", "Trainer", "train_recipe",
    "train_rounds",
}  # fmt: skip
INTERACTIONS = {"train", "test", "validation", "interactions", "negatives"}


class Call(NamedTuple):
    """A callable, the name that errors have to give it, and right arguments."""

    name: str
    function: Callable[..., Any]
    given: dict[str, Any]


def _state(home: str, world: World) -> Call:
    """``load_state_dict``, the state's entries as arguments."""
    state = SUBJECTS[home](world).state_dict()

    def load(**entries: Any) -> None:
        SUBJECTS[home](world).load_state_dict(entries)

    return Call(f"{home}.load_state_dict", load, dict(state))


def more(name: str, world: World) -> Iterator[Call]:
    """The further calls that are walked with a public name."""
    w = world
    if name == "evaluate":
        held = {"train": w.parts.train, "test": w.parts.test, "validation": None}
        candidates = freeze_sampled_candidates(**held, num_negatives=1)
        scores = most_popular_scores(w.parts.train)
        yield Call("most_popular_scores", most_popular_scores, {"train": w.seen})
        yield Call("evaluate_scores", evaluate_scores, {
            "score_block": scores, **held, "num_items": N, "k": 2,
        })  # fmt: skip
        yield Call("freeze_sampled_candidates", freeze_sampled_candidates, {
            **held, "num_negatives": 1, "seed": 0,
        })  # fmt: skip
        yield Call("evaluate_sampled_scores", evaluate_sampled_scores, {
            "score_pairs": lambda users, items: np.zeros(items.shape), "candidates": candidates,
        })  # fmt: skip
    if name == "in_batch_log_q":
        given: dict[str, Any] = {"interactions": w.seen, "log_q": np.full(N, -np.log(N))}
        yield Call("positive_mass", positive_mass, given)
    if name == "train_recipe":
        settings = fastneg.Settings(**w.settings)
        yield Call("train_rounds", train_rounds, {
            "train": w.parts.train, "settings": settings, "validation": None,
        })  # fmt: skip
    if name in ("UniformSampler", "StreamingPopularitySampler", "FrequencyEstimator"):
        yield _state(name, w)
    if name == "NegativeBatches":
        yield _state(name, w)
        yield Call(name, fastneg.NegativeBatches, {
            "interactions": w.seen, "batch_size": 16, "sampler": fastneg.UniformSampler(w.seen),
            "num_negatives": 2, "shared_sampler": fastneg.LogUniformSampler(w.seen),
            "num_shared": 4, "together": 2, "rewards": True, "user_balance": 0.5,
        })  # fmt: skip
    if name == "TwoTower":
        users = fastneg.FeatureTable.from_rows({"age": np.arange(U) * 1.5})
        yield Call(name, fastneg.TwoTower, {
            "num_users": U, "num_items": N, "dim": 4, "user_features": users,
            "item_features": w.features, "context_features": w.rows, "hidden_layers": 1,
            "dropout": 0.1, "temperature": 0.5, "temperature_bounds": (0.1, 1.0),
        })  # fmt: skip
    if name == "FeatureTable":
        table = w.features
        yield Call(name, fastneg.FeatureTable, {
            "num_rows": N, "categorical": dict(table.categorical), "multi": dict(table.multi),
            "numeric": dict(table.numeric), "scales": dict(table.scales), "vectors": None,
        })  # fmt: skip
    if name == "ListedSampler":
        weights = np.ones((U, 2))
        yield Call(name, fastneg.ListedSampler, {
            "lists": np.tile([0, 1], (U, 1)), "weights": weights, "num_items": N,
        })  # fmt: skip
