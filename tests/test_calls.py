"""Errors begin with the call that the user made: public functions with one wrong argument each.

Many public functions call another one. What that one finds wrong is said in the name of the one
that the user called. (Mining: tests/mining/test_wrong_calls.py.)
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import fastneg
from fastneg.errors import FastnegError

SEEN = fastneg.Interactions.from_codes(
    np.arange(200) % 20, np.arange(200) % 37, num_users=20, num_items=40
)
USERS, ITEMS = np.ones((20, 3), np.float32), np.ones((40, 3), np.float32)
SCORES, NEGATIVE = torch.zeros(4), torch.zeros(4, 5)
WRONG: list[Any] = [
    "x", -5, 1.5, object(), [[1], [2, 3]], float("nan"), 2**70, np.array(["a"]), {}, -(2**70),
]  # fmt: skip

# The arguments that are right; each of all arguments is then replaced by wrong ones.
CALLS: dict[str, dict[str, Any]] = {
    "UniformSampler": {"interactions": SEEN},
    "PopularitySampler": {"interactions": SEEN},
    "LogUniformSampler": {"interactions": SEEN},
    "StreamingPopularitySampler": {"catalog": SEEN},
    "AliasTable": {"weights": np.arange(1, 9)},
    "TwoTower": {"num_users": 4, "num_items": 5},
    "recipe": {"name": "bpr"},
    "train_recipe": {"recipe": "bpr", "train": SEEN},
    "split_leave_last_out": {"interactions": SEEN},
    "split_last_fraction": {"interactions": SEEN},
    "split_random": {"interactions": SEEN},
    "hold_out_validation": {"train": SEEN},
    "evaluate": {"user_vectors": USERS, "item_vectors": ITEMS, "train": SEEN, "test": SEEN},
    "in_batch_log_q": {"item_event_counts": np.arange(1, 9)},
    "softmax_loss": {"positive_scores_B": SCORES, "negative_scores_BC": NEGATIVE},
    "bpr_loss": {"positive_scores_B": SCORES, "negative_scores_BK": NEGATIVE},
    "open_mined": {"folder": "nowhere"},
    "keep_probabilities": {"interactions_or_counts": SEEN, "threshold": 0.01},
    "NegativeBatches": {"interactions": SEEN, "batch_size": 10},
}
SKIPPED = {
    "train_recipe": {"out", "on_step", "settings", "negatives"},
    "TwoTower": {  # other objects are made by the library itself
        "user_features", "item_features", "context_features", "user_history", "temperature_bounds",
        "use_user_ids", "use_item_ids",
    },
}  # fmt: skip


def cases() -> list[Any]:
    found = []
    for call in CALLS:
        if not hasattr(fastneg, call):
            continue
        for name, parameter in inspect.signature(getattr(fastneg, call)).parameters.items():
            plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if plain and name not in SKIPPED.get(call, ()):
                found.append(pytest.param(call, name, id=f"{call}-{name}"))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "argument"), cases())
def test_a_wrong_argument_is_refused_in_the_name_of_the_call(call: str, argument: str) -> None:
    for value in WRONG:
        given = {**CALLS[call], argument: value}
        if call == "train_recipe" and argument not in ("recipe", "train", "test", "validation"):
            given["recipe"] = "no such recipe"  # nothing is trained here
        said = refusal(call, given)
        assert said is None or said.startswith((f"{call}:", f"{call}.")), (value, said)


def refusal(call: str, given: dict[str, Any]) -> str | None:
    """What is said of the arguments; None where nothing is."""
    try:
        getattr(fastneg, call)(**given)
    except FastnegError as error:
        return str(error)
    except TypeError as error:
        if "unexpected keyword" in str(error) or "required" in str(error):
            raise
    return None  # other objects than a function takes are for the tests of that function
