"""Items and users that a model never saw are scored by their features, from a saved folder too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.recipes import train_recipe
from fastneg.training.outputs import load_features, load_model
from fastneg.training.towers import TwoTower

NEW = 40  # items and users that are left out of training


def world(seed: int = 0) -> tuple[np.ndarray, dict, dict]:
    """True affinities of 160 users and 160 items, and their tables: two topics, one number."""
    rng = np.random.default_rng(seed)
    tastes, ages = rng.integers(0, 5, 160), rng.normal(size=160)
    topics, years = rng.integers(0, 5, (160, 2)), rng.normal(size=160)
    affinity = 3.0 * (topics == tastes[:, None, None]).any(-1) + np.outer(ages, years)
    users = {"id": np.arange(160), "taste": [f"t{t}" for t in tastes], "age": 40 + 10 * ages}
    items = {"id": np.arange(160), "topics": [sorted({f"t{a}", f"t{b}"}) for a, b in topics],
             "year": 2000 + 5 * years}  # fmt: skip
    return affinity, users, items


def rows_of(table: dict, rows: slice) -> dict:
    return {name: column[rows] for name, column in table.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, np.ndarray, dict, dict]:
    affinity, users, items = world()
    rng = np.random.default_rng(1)
    old = slice(0, 160 - NEW)
    liked = affinity[old, old] + rng.gumbel(size=(160 - NEW, 160 - NEW))
    pairs = np.argsort(-liked, axis=1)[:, :20]
    train = Interactions.from_pairs(
        np.repeat(np.arange(160 - NEW), 20), pairs.ravel(),
        user_ids=np.arange(160 - NEW), item_ids=np.arange(160 - NEW),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    train_recipe(
        train,
        recipe="in-batch-logq",
        settings={
            "use_user_ids": False, "use_item_ids": False, "hidden_layers": 1, "dim": 8,
            "batch_size": 128, "epochs": 12, "patience": 3, "learning_rate": 0.01, "device": "cpu",
        },
        user_features=FeatureTable.from_table(rows_of(users, old), ids=train.user_ids),
        item_features=FeatureTable.from_table(rows_of(items, old), ids=train.item_ids),
        out=folder,
    )  # fmt: skip
    return folder, affinity, users, items


def test_new_users_and_items_are_ranked_by_their_features(trained) -> None:
    folder, affinity, users, items = trained
    model = load_model(folder)
    new = slice(160 - NEW, 160)
    of_items, of_users = load_features(folder, "item"), load_features(folder, "user")
    new_items = FeatureTable.from_table(
        rows_of(items, new), ids=np.arange(160 - NEW, 160), like=of_items
    )
    new_users = FeatureTable.from_table(
        rows_of(users, new), ids=np.arange(160 - NEW, 160), like=of_users
    )
    with torch.no_grad():
        scores = model.embed_users(features=new_users) @ model.embed_items(features=new_items).T
    wanted = affinity[new, new]
    likely = scores.numpy()[wanted > np.median(wanted)]
    unlikely = scores.numpy()[wanted <= np.median(wanted)]
    assert (likely[:, None] > unlikely[None]).mean() > 0.75  # the AUC; 0.5 is chance
    # without their features nothing tells them apart
    none = model.embed_items(torch.full((3,), -1))
    assert torch.equal(none[0], none[1])


def test_a_row_of_the_training_table_is_embedded_as_its_code(trained) -> None:
    folder, _, _, items = trained
    model = load_model(folder)
    like = load_features(folder, "item")
    again = FeatureTable.from_table(rows_of(items, slice(5, 8)), ids=[5, 6, 7], like=like)
    wanted = model.embed_items(torch.tensor([5, 6, 7]))
    torch.testing.assert_close(model.embed_items(features=again), wanted)


def test_ids_and_features_together_need_no_id() -> None:
    table = FeatureTable.from_rows({"x": [1.0, 2.0, 4.0], "c": ["a", "b", None]})
    model = TwoTower(2, 3, dim=4, item_features=table)
    new = FeatureTable.from_rows({"x": [2.0], "c": ["b"]}, like=table)
    ids = model.item_tower.id_embedding
    assert ids is not None
    whole = model.embed_items(torch.tensor([1]))
    torch.testing.assert_close(model.embed_items(features=new), whole - ids.weight[1])
    assert model.embed_users(torch.tensor([-1])).abs().sum() == 0


def test_errors(trained) -> None:
    model = load_model(trained[0])
    with pytest.raises(FastnegError, match="encode the table with like="):
        model.embed_items(features=FeatureTable.from_rows({"year": [1.0]}))
    with pytest.raises(FastnegError, match="neither codes nor features"):
        model.embed_items()
    with pytest.raises(FastnegError, match="the model has no context_features"):
        model.embed_users(torch.tensor([0]), context=FeatureTable.from_rows({"x": [1]}))
    with pytest.raises(FastnegError, match="side = 'both' is not one of"):
        load_features(trained[0], "both")
    assert load_features(trained[0], "context") is None
