"""One tower: which parts a vector is the sum of, rows of other tables, shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError
from fastneg.training.feature_encoders import FeatureEncoder, FeatureValues
from fastneg.training.tower import Tower

TABLE = FeatureTable.from_rows(
    {"kind": ["a", "b", None], "price": [1.0, None, 3.0], "words": ["x y", "", "y"]},
    columns={"words": "text"},
)
CONTEXT = FeatureTable.from_rows({"hour": ["h1", "h2"], "load": [0.0, 2.0]})


def parts_of(
    encoder: FeatureEncoder | None, row: dict[str, int | list[int] | float]
) -> torch.Tensor:
    """The sum of a row's parts; -1 and [] are missing."""
    assert encoder is not None
    total = torch.zeros(4)
    for name, value in row.items():
        if isinstance(value, list):
            table = encoder.multi[f"column_{name}"].embedding.weight
            total = total + table[[v + 1 for v in value] or [0]].mean(0)
        elif isinstance(value, int):
            total = total + encoder.categorical[f"column_{name}"].embedding.weight[value + 1]
        else:
            assert encoder.numeric is not None
            total = total + encoder.numeric.weight[:, 0] * value
    return total


def test_a_vector_is_the_sum_of_its_parts() -> None:
    tower = Tower(3, dim=4, features=TABLE, context=CONTEXT)
    ids = tower.id_embedding
    assert ids is not None
    rows = FeatureValues(CONTEXT, call="test").take(torch.tensor([1, -1]))
    found = tower(torch.tensor([1, 2]), context=rows)
    features = [{"kind": 1, "price": 0.0, "words": []}, {"kind": -1, "price": 1.0, "words": [1]}]
    contexts = [{"hour": 1, "load": 1.0}, {"hour": -1, "load": 0.0}]
    for place, code in enumerate((1, 2)):
        wanted = ids.weight[code] + parts_of(tower.features, features[place])
        wanted = wanted + parts_of(tower.context, contexts[place])
        torch.testing.assert_close(found[place], wanted)
    without = tower(torch.tensor([2]))
    torch.testing.assert_close(without[0], found[1])


def test_rows_of_another_table_stand_for_those_of_a_code() -> None:
    tower = Tower(3, dim=4, features=TABLE, use_ids=False)
    assert tower.features is not None
    other = TABLE.select([2, 0])
    rows = tower.features.rows_of(other, call="test")
    assert rows.num_rows == 2
    found = tower(torch.tensor([-1, -1]), features=rows)
    torch.testing.assert_close(found, tower(torch.tensor([2, 0])))


def test_context_alone_and_every_shape_of_codes() -> None:
    tower = Tower(3, dim=4, use_ids=False, context=CONTEXT.select([]), hidden_layers=1)
    assert tower(torch.tensor(-1)).shape == (4,)
    assert tower(torch.zeros((0, 2), dtype=torch.int64)).shape == (0, 2, 4)
    assert tower(torch.zeros((2, 3), dtype=torch.int64)).shape == (2, 3, 4)
    assert not [name for name in tower.state_dict() if "values" in name]


def test_numeric_columns_alone() -> None:
    table = FeatureTable.from_rows({"x": np.arange(3.0)})
    encoder = FeatureEncoder(table, num_rows=3, dim=2, call="test")
    assert encoder.rows_of(table.select([1]), call="test").num_rows == 1
    assert encoder.num_parts == 1


@pytest.mark.parametrize("other", [{"kind": ["a"]}, {"hour": ["h9"], "load": [1.0]}])
def test_other_columns_are_refused(other: dict) -> None:
    encoder = FeatureEncoder(CONTEXT, num_rows=None, dim=2, call="test")
    with pytest.raises(FastnegError, match="encode the table with like="):
        encoder.rows_of(FeatureTable.from_rows(other), call="test")
