"""Which kind a column gets, and that it is said: titles are no categories."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fastneg.data.features import FeatureTable

RNG = np.random.default_rng(0)
WORDS = [f"word{i}" for i in range(40)]
TITLES = [f"{' '.join(RNG.choice(WORDS, 3))} {i}" for i in range(200)]
ROWS = {
    "title": [title.rsplit(" ", 1)[0] for title in TITLES],
    "genre": [f"g{i % 7}" for i in range(200)],
    "url": [f"http://x/{i}" for i in range(200)],
    "tokens": [[f"t{i}", f"s{i}"] for i in range(200)],
    "tags": [[f"g{i % 7}"] for i in range(200)],
    "year": list(range(200)),
    "emb": RNG.normal(size=(200, 16)).astype(np.float32),
}


def test_near_unique_columns_are_no_categories_and_it_is_said() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = FeatureTable.from_rows(ROWS)
    said = sorted(str(one.message) for one in caught)
    assert len(said) == 3
    assert "column 'title' has 200 distinct texts in 200 rows: its words are taken" in said[0]
    assert "columns={'title': 'categorical'} takes it as it is" in said[0]
    assert "column 'tokens' has 400 distinct entries among 400 and is left out" in said[1]
    assert "columns={'tokens': 'multi'}" in said[1]
    assert "column 'url' has 200 distinct texts in 200 rows and is left out" in said[2]
    assert all(one.filename == __file__ for one in caught)
    assert table.kinds == {"genre": "categorical", "title": "text", "tags": "multi",
                           "year": "numeric", "emb": "vector"}  # fmt: skip
    assert table.left_out == ("url", "tokens")
    assert table.multi["title"].num_categories == 40
    assert table.describe() == (
        "genre categorical (7), title text (40), tags multi (7), year numeric, "
        "emb vector (width 16), left out: url, tokens"
    )


def test_a_kind_that_is_given_stays_and_nothing_is_said() -> None:
    given = {"title": "categorical", "url": "text", "tokens": "multi", "year": "ignore"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = FeatureTable.from_rows(ROWS, columns=given)
        again = FeatureTable.from_rows(ROWS, like=table)
    assert table.kinds | given == {**given, **table.kinds, "year": "ignore"}
    assert table.categorical["title"].num_categories == len(set(ROWS["title"]))
    assert again.kinds == table.kinds
    assert again.describe().startswith("title categorical")


@pytest.mark.parametrize(("distinct", "unique"), [(160, False), (161, True)])
def test_more_than_four_in_five_are_near_unique(distinct: int, unique: bool) -> None:
    values = [f"x{i % distinct}" for i in range(200)] + ["", None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = FeatureTable.from_rows({"c": values, "n": range(202)})
    assert ("c" in table.left_out) is unique
    assert bool(caught) is unique


def test_of_a_few_rows_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = FeatureTable.from_rows({"c": [f"name {i}" for i in range(19)]})
    assert table.kinds == {"c": "categorical"}
