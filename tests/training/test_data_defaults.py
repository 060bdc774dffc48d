"""What is left to the data: one rule each, by counts alone, recorded and said."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest

from fastneg import Interactions
from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError
from fastneg.recipes import recipe, train_recipe
from fastneg.training import data_defaults, fused_softmax
from fastneg.training.data_defaults import (
    batch_size_of,
    default_batch_size,
    default_eval_users,
    settled,
)
from fastneg.training.negatives import Objective
from fastneg.training.settings import Settings

MNS = "mixed-negative-sampling"


def naive_batch_size(num_rows: int) -> int:
    size = 256
    while size < 2048 and num_rows // 40 >= 2 * size:
        size *= 2
    return size


def test_the_rule_of_batch_sizes_against_its_twin() -> None:
    edges = [one * 40 + near for one in (1, 256, 512, 1024, 2048, 4096) for near in (-1, 0, 1)]
    for rows in [1, 2, 39, 30_000, 72_000, 716_000, 10**9, *edges]:
        assert default_batch_size(rows) == naive_batch_size(rows), rows


def pairs(num_users: int, num_items: int, num_rows: int) -> Interactions:
    cells = np.random.default_rng(1).choice(num_users * num_items, num_rows, replace=False)
    return Interactions.from_codes(
        cells // num_items, cells % num_items, num_users=num_users, num_items=num_items
    )


def test_a_given_batch_size_stays_and_an_open_one_follows_positive_rows() -> None:
    train = pairs(200, 300, 21_000)
    assert batch_size_of(Settings(), train) == 512
    assert batch_size_of(Settings(batch_size=77), train) == 77
    assert Objective(train, Settings(device="cpu")).batches.batch_size == 512
    weights = np.arange(train.num_rows) % 2  # half of them no examples
    half = Interactions.from_codes(
        train.row_users, train.row_items, num_users=200, num_items=300, weights=weights
    )
    assert batch_size_of(Settings(), half) == 256


@pytest.mark.parametrize(
    ("name", "changes", "columns"),
    [
        ("bpr", {"num_negatives": 3}, 300),
        ("in-batch-logq", {"batch_size": 1024}, 1024),
        (MNS, {"batch_size": 1024, "num_uniform": 512}, 1536),
        ("sampled-softmax", {"num_negatives": 4096}, 4096),
        ("full-softmax", {}, 50_000),
        ("dns", {}, 3200),
        ("facebook-ebr", {"batch_size": 1024}, 2048 + 1024 + 100),
        ("cross-batch", {"batch_size": 512}, 512 + 8192),
    ],
)
def test_users_of_an_evaluation_take_a_fifth_of_the_work(name, changes, columns) -> None:
    settings = recipe(name).settings({"batch_size": 2048, **changes})
    rows, items, users = 1_000_000, 50_000, 10**9
    found = default_eval_users(settings, rows, users, items)
    train, evaluation = rows * (500 + columns), found * items
    assert 0.199 < evaluation / (train + evaluation) <= 0.2
    later = default_eval_users(settings.replace(eval_every=3), rows, users, items)
    assert abs(later - 3 * found) <= 3
    assert default_eval_users(settings, rows, found - 1, items) == found - 1  # all of them
    assert default_eval_users(settings, 10, users, items) == 2000  # fewer are noise
    assert default_eval_users(settings, 10, 1999, items) == 1999


def test_settled_says_what_it_decided_and_changes_nothing_else(monkeypatch) -> None:
    train, validation = hold_out_validation(pairs(60, 80, 1000))
    settings = recipe("bpr").settings({"epochs": 3})
    chosen, said = settled(settings, train, validation)
    assert chosen == settings.replace(batch_size=256, eval_users=60, precision="float32")
    assert list(said) == ["batch_size"]  # all users: nothing to say
    assert f"256 for {train.num_positives:,} training rows" in said["batch_size"]
    assert settled(chosen, train, validation) == (chosen, {})
    assert settled(settings, train)[0].eval_users is None
    monkeypatch.setattr(data_defaults, "_FEWEST", 5)
    few, said = settled(settings, train.select(np.arange(20)), validation)
    assert few.eval_users == 20 * 600 // (4 * 80)
    assert "37 of 60 validation users" in said["eval_users"]


def test_a_run_records_and_says_what_the_data_decided(tmp_path) -> None:
    known = generate_dataset(60, 80, positives_per_user=16, seed=1).interactions
    small = {"dim": 4, "epochs": 1, "device": "cpu"}
    result = train_recipe(known, recipe="bpr", settings=small, out=tmp_path)
    assert result.settings.batch_size == 256
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written["by_data"]) == ["batch_size"]
    assert written["by_data"]["batch_size"].startswith("256 for ")
    assert written["settings"]["batch_size"] == 256
    config = tomllib.loads((tmp_path / "config.toml").read_text())["settings"]
    assert (config["batch_size"], config["eval_users"], config["init_std"]) == (256, 60, 0.01)
    again = train_recipe(known, recipe=str(tmp_path / "config.toml"))
    assert again.settings == result.settings
    assert again.metrics["by_data"] == {}
    assert again.metrics["validation"] == result.metrics["validation"]


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_precision_becomes_what_a_whole_batch_makes_of_it(monkeypatch, has_bfloat16) -> None:
    """One for a run: its last, smaller batch too, and a million scores decide."""
    monkeypatch.setattr(fused_softmax, "HAS_BFLOAT16", has_bfloat16)
    wide = "bfloat16" if has_bfloat16 else "float32"
    base = {"batch_size": 1024, "device": "cpu"}
    for changes, rows, wanted in (
        ({"loss": "in_batch"}, 10_000, wide),
        ({"loss": "in_batch"}, 1023, "float32"),
        ({"loss": "in_batch", "batch_size": 1023}, 10_000, "float32"),
        ({"loss": "mixed", "batch_size": 512, "num_uniform": 1536}, 10_000, wide),
        ({"loss": "sampled_softmax", "shared": True, "num_negatives": 1024}, 10_000, wide),
        ({"loss": "sampled_softmax", "num_negatives": 1024}, 10_000, "float32"),
        ({"loss": "bsl", "shared": True, "num_negatives": 1024}, 10_000, wide),
        ({"loss": "hinge", "shared": True, "num_negatives": 1024}, 10_000, "float32"),
        ({"loss": "bpr"}, 10_000, "float32"),
    ):
        assert data_defaults.run_precision(Settings(**{**base, **changes}), rows) == wanted
    given = Settings(**base, loss="bpr", precision="bfloat16")
    assert data_defaults.run_precision(given, 10) == "bfloat16"


def test_precision_is_recorded_and_belongs_to_a_run(monkeypatch, tmp_path) -> None:
    known = generate_dataset(80, 60, positives_per_user=16, seed=1).interactions
    small = {"dim": 4, "epochs": 2, "device": "cpu", "batch_size": 1024, "loss": "mixed",
             "num_uniform": 2048}  # fmt: skip
    monkeypatch.setattr(fused_softmax, "HAS_BFLOAT16", True)
    on_one = train_recipe(known, recipe="bpr", settings=small, out=tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())
    config = tomllib.loads((tmp_path / "config.toml").read_text())
    assert written["settings"]["precision"] == config["settings"]["precision"] == "bfloat16"
    assert "bfloat16" in written["by_data"]["precision"]
    monkeypatch.setattr(fused_softmax, "HAS_BFLOAT16", False)
    with pytest.raises(CheckpointError, match="precision = 'bfloat16', not 'float32'"):
        train_recipe(known, recipe="bpr", settings=small, out=tmp_path, resume=True)
    same = train_recipe(
        known, recipe="bpr", settings={**small, "precision": "bfloat16"}, out=tmp_path, resume=True
    )
    assert same.metrics["validation"] == on_one.metrics["validation"]
