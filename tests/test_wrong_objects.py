"""Wrong objects in public calls of training and evaluation end in one error that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fastneg
from fastneg.errors import FastnegError
from fastneg.training.evaluation import evaluate_scores, most_popular_scores
from fastneg.training.log_q import positive_mass
from fastneg.training.rounds import build_model, train_rounds
from fastneg.training.sampled_evaluation import (
    evaluate_sampled_scores,
    freeze_sampled_candidates,
)

SEEN = fastneg.Interactions.from_codes([0, 0, 1, 1, 2], [0, 1, 1, 2, 0], num_users=3, num_items=4)
HELD = fastneg.Interactions.from_codes([0, 1], [3, 3], num_users=3, num_items=4)
USERS, ITEMS = np.eye(3, 2), np.eye(4, 2) + 0.1
CANDIDATES = freeze_sampled_candidates(SEEN, HELD, num_negatives=1)
SETTINGS = fastneg.Settings(epochs=1, dim=2, device="cpu", batch_size=4)

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "evaluate": (fastneg.evaluate, {
        "user_vectors": USERS, "item_vectors": ITEMS, "train": SEEN, "test": HELD,
        "validation": None, "k": 2, "bands": 2, "unknown_test_items": None, "block": None,
        "scores_cold_users": False,
    }),
    "evaluate_scores": (evaluate_scores, {
        "score_block": most_popular_scores(SEEN), "train": SEEN, "test": HELD, "validation": None,
        "num_items": 4, "k": 2,
    }),
    "most_popular_scores": (most_popular_scores, {"train": SEEN}),
    "evaluate_events": (fastneg.evaluate_events, {
        "model": build_model(SEEN, SETTINGS), "train": SEEN, "test": HELD,
    }),
    "evaluate_sampled": (fastneg.evaluate_sampled, {
        "user_vectors": USERS, "item_vectors": ITEMS, "candidates": CANDIDATES, "k": 1,
        "scores_cold_users": False,
    }),
    "evaluate_sampled_scores": (evaluate_sampled_scores, {
        "score_pairs": lambda users, items: np.zeros(items.shape), "candidates": CANDIDATES,
    }),
    "freeze_sampled_candidates": (freeze_sampled_candidates, {
        "train": SEEN, "test": HELD, "validation": None, "num_negatives": 1, "seed": 0,
    }),
    "split_by_time": (fastneg.split_by_time, {"interactions": SEEN, "test_fraction": 0.1}),
    "split_leave_last_out": (fastneg.split_leave_last_out, {"interactions": SEEN, "seed": 0}),
    "split_last_fraction": (fastneg.split_last_fraction, {"interactions": SEEN, "fraction": 0.2}),
    "split_random": (fastneg.split_random, {
        "interactions": SEEN, "fraction": 0.2, "seed": 0, "per_user": False,
    }),
    "hold_out_validation": (fastneg.hold_out_validation, {
        "train": SEEN, "fraction": 0.2, "seed": 0,
    }),
    "NegativeBatches": (fastneg.NegativeBatches, {
        "interactions": SEEN, "batch_size": 2, "sampler": fastneg.UniformSampler(SEEN),
        "num_negatives": 1, "log_q": True, "shared_sampler": None, "num_shared": 0, "draws": (),
        "rewards": False, "user_balance": 0.0, "shuffle": True, "seed": 0, "name": "b",
        "together": 1, "exhausted": "drop",
    }),
    "in_batch_log_q": (fastneg.in_batch_log_q, {
        "item_event_counts": SEEN.item_event_counts, "items": None, "keep": None, "unseen": None,
    }),
    "mixed_log_q": (fastneg.mixed_log_q, {
        "batch_log_q": torch.zeros(3), "num_batch": 2, "num_uniform": 2, "num_items": 4,
    }),
    "positive_mass": (positive_mass, {"interactions": SEEN, "log_q": np.log(np.full(4, 0.25))}),
    "Trainer": (fastneg.Trainer, {
        "model": build_model(SEEN, SETTINGS), "train": SEEN, "settings": SETTINGS,
        "validation": None, "checkpoint": None, "log": None,
    }),
    "train_recipe": (fastneg.train_recipe, {
        "train": SEEN, "validation": HELD, "test": None, "recipe": "bpr", "negatives": None,
        "settings": {"epochs": 1, "dim": 2, "device": "cpu"}, "seed": None, "split_seed": None,
        "user_features": None, "item_features": None, "out": None,
    }),
    "train_rounds": (train_rounds, {"train": SEEN, "settings": SETTINGS, "validation": None}),
}  # fmt: skip
WRONG = [5, 1.5, float("nan"), b"x", [1, 2], [[1, [2]]], np.zeros((3, 4)), {"a": 1}, {}, object(),
         SEEN, HELD, fastneg.UniformSampler(5)]  # fmt: skip
OF_INTERACTIONS = {"train", "test", "validation", "interactions", "negatives"}


@pytest.mark.parametrize(
    ("name", "argument"), [(name, key) for name, (_, good) in CALLS.items() for key in good]
)
@pytest.mark.filterwarnings("ignore")
def test_no_raw_error(name: str, argument: str) -> None:
    """What the call takes is taken; all else is refused as what it is."""
    function, good = CALLS[name]
    for value in WRONG:
        said = None
        try:
            function(**{**good, argument: value})
        except FastnegError as error:
            said = str(error)
        if argument in OF_INTERACTIONS and not isinstance(value, fastneg.Interactions):
            assert said is not None, value
            assert f"{name}: {argument} is a {type(value).__name__}" in said
