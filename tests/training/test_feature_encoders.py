"""Vectors as a part of a tower: a linear layer of each column, zeros where they are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError
from fastneg.training.feature_encoders import FeatureEncoder, FeatureValues
from fastneg.training.towers import Tower, TwoTower

RNG = np.random.default_rng(3)
ROWS = {
    "b": RNG.normal(size=(6, 5)),
    "a": RNG.normal(size=(6, 300)),
    "kind": ["x", "y", "x", "x", "y", "x"],
    "n": [1, 2, 3, 4, 5, 6],
}


def test_the_parts_are_linear_maps_of_the_standardised_vectors() -> None:
    table = FeatureTable.from_rows(ROWS)
    tower = Tower(6, features=table, use_ids=False, dim=8, seed=1)
    encoder = tower.features
    assert encoder is not None
    assert encoder.num_parts == 4
    parts = encoder(torch.tensor([4, -1, 0]))
    for place, name in ((2, "a"), (3, "b")):
        weight = encoder.vectors[f"column_{name}"].weight.detach().numpy()
        wanted = table.vectors[name].values[[4, 0]] @ weight.T
        assert np.allclose(parts[place].detach().numpy()[[0, 2]], wanted, atol=1e-5)
        assert not parts[place][1].any()  # unknown: the mean
    total = sum(part.detach() for part in parts)
    assert torch.allclose(tower(torch.tensor([4, -1, 0])).detach(), total, atol=1e-6)


def test_a_part_starts_at_the_length_of_an_embedding_whatever_the_width() -> None:
    for width in (4, 64, 1024):
        table = FeatureTable.from_rows({"v": RNG.normal(size=(400, width))})
        tower = Tower(400, features=table, use_ids=False, dim=32)
        lengths = tower(torch.arange(400)).detach().norm(dim=1)
        assert 0.7 < float(lengths.mean()) < 1.3


def test_rows_of_new_codes_and_parts_of_them() -> None:
    table = FeatureTable.from_rows(ROWS)
    model = TwoTower(3, 6, dim=8, item_features=table, use_item_ids=False)
    new = FeatureTable.from_rows({name: list(column)[::-1] for name, column in ROWS.items()},
                                 like=table)  # fmt: skip
    assert torch.allclose(model.embed_items(features=new), model.item_vectors().flip(0), atol=1e-6)
    rows = FeatureValues(new, call="test").take(torch.arange(6))
    assert rows.num_rows == 6
    assert [tuple(one.shape) for one in rows.part(2, 5).vectors] == [(3, 300), (3, 5)]
    only = FeatureTable.from_rows({"a": ROWS["a"]})
    assert FeatureValues(only, call="test").take(torch.arange(4)).num_rows == 4
    narrow = FeatureTable.from_rows({**ROWS, "b": RNG.normal(size=(6, 4))})
    with pytest.raises(FastnegError, match=r"\('b', 'vector', 4\).*number of categories or width"):
        model.embed_items(features=narrow)


def test_a_length_that_differs_is_refused() -> None:
    table = FeatureTable.from_rows({"a": ROWS["a"]})
    short = FeatureTable(7, vectors=table.vectors)
    with pytest.raises(FastnegError, match="feature 'a' has 6 rows; 7 expected"):
        FeatureEncoder(short, num_rows=7, dim=4, call="test")


def test_gradients_reach_the_map() -> None:
    table = FeatureTable.from_rows({"a": ROWS["a"]})
    tower = Tower(6, features=table, dim=4)
    tower(torch.tensor([1, 2])).sum().backward()
    assert tower.features is not None
    gradient = tower.features.vectors["column_a"].weight.grad
    wanted = torch.from_numpy(table.vectors["a"].values[[1, 2]]).sum(0).expand(4, -1)
    assert torch.allclose(gradient, wanted, atol=1e-5)
