"""Towers: plain lookups, features, unknown codes, reproducible weights, rebuilding."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastneg.data.features import CategoricalColumn, FeatureTable, MultiColumn
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.history import UserHistory
from fastneg.training.towers import Tower, TwoTower


def item_table() -> FeatureTable:
    return FeatureTable(
        4,
        categorical={"type": CategoricalColumn(np.array([1, -1, 0, 1]), 2)},
        multi={"a.b": MultiColumn(np.array([0, 2, 2, 5, 5]), np.array([0, 2, 1, 1, 2]), 3)},
        numeric={
            "price": np.array([0.5, -1.0, np.nan, 2.0], np.float32),
            "age": np.array([1.0, 0.0, 0.25, 0.0], np.float32),
        },
    )


def embedding(tower: Tower, kind: str, column: str) -> torch.Tensor:
    return getattr(tower.features, kind)[f"column_{column}"].embedding.weight


def test_matrix_factorisation_is_a_lookup() -> None:
    model = TwoTower(5, 7, dim=3)
    users = torch.tensor([[4, 0], [2, 2]])
    weight = model.user_tower.id_embedding.weight
    assert torch.equal(model.embed_users(users), weight[users])
    assert [name for name, _ in model.named_parameters()] == [
        "user_tower.id_embedding.weight",
        "item_tower.id_embedding.weight",
    ]
    assert torch.equal(model.item_vectors(block=2), model.item_tower.id_embedding.weight)
    assert not model.item_vectors().requires_grad
    assert not model.scores_cold_users


def test_an_unknown_code_is_zero_and_gets_no_gradient() -> None:
    model = TwoTower(5, 7, dim=3, similarity="cosine")
    vectors = model.embed_users(torch.tensor([1, -1]))
    assert torch.equal(vectors[1], torch.zeros(3))
    vectors.sum().backward()
    gradient = model.user_tower.id_embedding.weight.grad
    assert bool(gradient.isfinite().all())
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [1]


def test_cosine_has_length_one_and_dot_has_not() -> None:
    codes = torch.arange(7)
    cosine = TwoTower(5, 7, dim=8, similarity="cosine").embed_items(codes).norm(dim=1)
    torch.testing.assert_close(cosine, torch.ones(7))
    assert not torch.allclose(TwoTower(5, 7, dim=8).embed_items(codes).norm(dim=1), cosine)


def test_without_hidden_layers_the_parts_are_summed() -> None:
    model = TwoTower(3, 4, dim=5, item_features=item_table())
    tower = model.item_tower
    ids = tower.id_embedding.weight
    types, tags = embedding(tower, "categorical", "type"), embedding(tower, "multi", "a%2Eb")
    numeric = tower.features.numeric.weight  # columns in order of name: age, price
    expected = torch.stack(
        [
            ids[0] + types[2] + (tags[1] + tags[3]) / 2 + numeric @ torch.tensor([1.0, 0.5]),
            ids[1] + types[0] + tags[0] + numeric @ torch.tensor([0.0, -1.0]),
            ids[2] + types[1] + (2 * tags[2] + tags[3]) / 3 + numeric @ torch.tensor([0.25, 0.0]),
            ids[3] + types[2] + tags[0] + numeric @ torch.tensor([0.0, 2.0]),
            types[0] + tags[0],
        ]
    )
    codes = torch.tensor([0, 1, 2, 3, -1])
    torch.testing.assert_close(model.embed_items(codes), expected)
    order = torch.tensor([[3, -1], [2, 2]])
    torch.testing.assert_close(model.embed_items(order), expected[order])


def test_hidden_layers_halve() -> None:
    table = item_table()
    tower = Tower(4, dim=5, features=table, hidden_layers=3, dropout=0.5, use_ids=False)
    shapes = [tuple(layer.weight.shape) for layer in tower.hidden if hasattr(layer, "weight")]
    assert shapes == [(40, 15), (20, 40), (10, 20), (5, 10)]
    tower.eval()
    codes = torch.tensor([2, 0, -1])
    parts = torch.cat(tower.features(codes), 1)
    torch.testing.assert_close(tower(codes), tower.hidden(parts))


def test_vectors_are_made_in_evaluation_mode_and_the_mode_restored() -> None:
    model = TwoTower(6, 4, dim=4, hidden_layers=1, dropout=0.5, item_features=item_table())
    model.train()
    first, second = model.user_vectors(block=4), model.user_vectors()
    assert torch.equal(first, second)
    assert model.user_tower.training
    model.eval()
    model.item_vectors()
    assert not model.item_tower.training


def test_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = TwoTower(5, 4, dim=4, hidden_layers=1, seed=3, item_features=item_table())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = TwoTower(5, 4, dim=4, hidden_layers=1, seed=3, item_features=item_table())
    other = TwoTower(5, 4, dim=4, hidden_layers=1, seed=4, item_features=item_table())
    for (name, a), b, c in zip(
        one.named_parameters(), two.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert name.endswith("bias") or not torch.equal(a, c), name
    # a side's weights do not depend on what the other side is made of
    assert torch.equal(
        TwoTower(5, 4, dim=4, hidden_layers=1, seed=3).user_vectors(), one.user_vectors()
    )
    square = TwoTower(5, 5, dim=4)
    assert not torch.equal(square.user_vectors(), square.item_vectors())


def test_the_spread_of_initial_embeddings() -> None:
    assert abs(float(TwoTower(2000, 2, dim=16).user_vectors().std()) - 0.01) < 0.0002
    assert abs(float(TwoTower(2000, 2, dim=16, init_std=0.1).user_vectors().std()) - 0.1) < 0.002


def test_ids_start_small_and_features_do_not() -> None:
    """Adam moves an entry by its learning rate: ids of few rows would keep a start of 1 / 8."""
    kinds = FeatureTable(
        2,
        categorical={"kind": CategoricalColumn(np.array([0, 1]), 500)},
        multi={"tags": MultiColumn(np.array([0, 1, 2]), np.array([0, 1]), 500)},
        numeric={f"n{i}": np.zeros(2, np.float32) for i in range(200)},
    )
    history = UserHistory(np.array([0, 1, 2]), np.array([0, 1]))
    model = TwoTower(2, 2000, dim=16, user_features=kinds, user_history=history, history="own")
    spread = {name: float(weight.std()) for name, weight in model.state_dict().items()}
    small = {"user_tower.id_embedding.weight", "user_tower.history.embedding.weight",
             "user_tower.history.empty", "item_tower.id_embedding.weight"}  # fmt: skip
    for name, value in spread.items():
        wanted = 0.01 if name in small else 0.25
        assert abs(value / wanted - 1) < (0.4 if value < 0.25 and name in small else 0.05), name
    assert small < set(spread)


def test_rebuilding_from_config_and_saved_weights() -> None:
    table = item_table()
    model = TwoTower(
        5, 4, dim=4, hidden_layers=2, similarity="cosine", temperature=0.1, dropout=0.1,
        item_features=table, use_item_ids=False, seed=9,
    )  # fmt: skip
    assert not any("codes" in name or "values" in name for name in model.state_dict())
    config = json.loads(json.dumps(model.config()))
    again = TwoTower(**config, item_features=table)
    again.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.item_vectors(), model.item_vectors())
    assert again.temperature == 0.1
    assert TwoTower(
        5, 4, user_features=FeatureTable(5, numeric={"x": np.zeros(5)})
    ).scores_cold_users


def test_features_learn() -> None:
    model = TwoTower(3, 4, dim=4, item_features=item_table(), hidden_layers=1)
    model(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "TwoTower: num_users = 0 is too small"),
        ({"dim": 0}, "dim = 0 is too small"),
        ({"dim": 2.5}, "dim = 2.5 is not an integer"),
        ({"hidden_layers": -1}, "hidden_layers = -1"),
        ({"similarity": "l2"}, "similarity = 'l2' is not one of 'dot', 'cosine'"),
        ({"temperature": 0.0}, "temperature = 0.0 is not above 0"),
        ({"temperature": float("nan")}, "temperature = nan is not finite"),
        ({"dropout": 0.5}, "dropout = 0.5 needs hidden layers"),
        ({"dropout": 1.0, "hidden_layers": 1}, "dropout = 1.0"),
        ({"use_user_ids": False}, "neither ids nor features"),
        ({"user_features": FeatureTable(6)}, "features have 6 rows; 5 expected"),
        ({"user_features": FeatureTable(5)}, "features have no columns"),
        (
            {"user_features": FeatureTable(5, numeric={"x": np.array([0, np.inf, 0, 0, 0])})},
            r"numeric features\[1, 0\] = inf",
        ),
        (
            {
                "user_features": FeatureTable(
                    5, categorical={"c": CategoricalColumn(np.array([0, 1, 2, 0, 0]), 2)}
                )
            },
            r"c\[2\] = 2 is not a code",
        ),
        ({"user_features": FeatureTable(5, numeric={"x": np.zeros(4)})}, "feature 'x' has 4 rows"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        TwoTower(**{"num_users": 5, "num_items": 4, **arguments})


def test_bad_codes() -> None:
    model = TwoTower(5, 4, dim=2)
    with pytest.raises(FastnegError, match=r"codes\[1\] = 5 is not a code in -1..4"):
        model.embed_users(torch.tensor([0, 5]))
    with pytest.raises(FastnegError, match=r"codes\[0\] = -2 is not a code"):
        model.embed_users(torch.tensor([-2, 3]))
    with pytest.raises(FastnegTypeError, match=r"codes are torch\.float32"):
        model.embed_users(torch.tensor([0.0]))
    with pytest.raises(FastnegTypeError, match="codes are list"):
        model.embed_users([0])  # type: ignore[arg-type]


def test_a_real_feature_table() -> None:
    films = {
        "id": [7, 9],
        "year": [1990, 2000],
        "genres": [["war", "drama"], ["drama"]],
        "studio": ["a", None],
    }
    table = FeatureTable.from_table(films, ids=[9, 5, 7], id_column="id")
    model = TwoTower(2, 3, dim=4, item_features=table, use_item_ids=False)
    unknown = model.embed_items(torch.tensor([1, -1]))
    torch.testing.assert_close(unknown[0], unknown[1])  # an item without an entry
    vectors = model.item_vectors()
    assert not torch.equal(vectors[0], vectors[2])
