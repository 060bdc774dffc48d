"""The check of published splits: random ones pass, ones by time or popularity stand out."""

from __future__ import annotations

import numpy as np

from bench import split_check
from fastneg import Interactions
from fastneg.data.splits import split_random
from fastneg.data.synthetic import generate_dataset


def pairs():
    everything = generate_dataset(600, 80, positives_per_user=20, seed=3).interactions
    return everything, np.asarray(everything.row_users), np.asarray(everything.row_items)


def test_a_random_split_has_a_deviation_of_one():
    everything, _, _ = pairs()
    split = split_random(everything, fraction=0.2, seed=5, per_user=True)
    assert 0.7 < split_check.deviation(split.train, split.test) < 1.3


def test_a_test_set_that_prefers_some_items_stands_out():
    everything, users, items = pairs()
    late = np.random.default_rng(1).random(len(items)) < np.where(items % 2 == 0, 0.3, 0.1)
    parts = [
        Interactions.from_codes(
            users[rows], items[rows],
            num_users=everything.num_users, num_items=everything.num_items,
        )
        for rows in (~late, late)
    ]  # fmt: skip
    assert split_check.deviation(*parts) > 2


def test_the_table_has_a_row_for_each_set(monkeypatch):
    everything, _, _ = pairs()
    split = split_random(everything, fraction=0.2, seed=5, per_user=True)
    monkeypatch.setattr(split_check, "read", lambda name: (split.train, split.test))
    rows = split_check.table(("one", "two")).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| one", "| two"]
    assert all(row.count("|") == 5 for row in rows)
    share = split.test.positive_items.size / everything.positive_items.size
    assert f"{100 * share:.1f} %" in rows[0]
