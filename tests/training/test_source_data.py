"""What a list draws from besides the interactions: found, or missed in one error."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.impressions import Impressions
from fastneg.training.settings import Settings
from fastneg.training.source_data import NOTHING, SourceData, source_data

ITEMS = {
    "id": [1, 2, 3],
    "market": ["b", "a", ""],
    "year": [3, 4, 5],
    "tags": [["x"], ["x", "y"], []],
}
SHOWN = Impressions(np.array([0]), np.array([0]), np.array([1]))


@pytest.fixture
def train():
    return Interactions.from_codes([0, 1, 1], [0, 1, 2], weights=[1, 1, 0])


@pytest.fixture
def features():
    return FeatureTable.from_table(ITEMS, ids=[1, 2, 3])


def settings(*sources) -> Settings:
    return Settings(negatives=list(sources))


def test_groups_are_the_codes_of_categorical_columns(train, features):
    asked = settings({"source": "same-group", "groups": "market"})
    found = source_data(train, asked, item_features=features, impressions=SHOWN)
    assert found.item_groups["market"].tolist() == [1, 0, -1]
    assert found.impressions is None  # no source takes them


def test_nothing_is_asked_for_what_is_not_listed(train):
    assert source_data(train, settings({"source": "in-batch"})) == NOTHING
    assert source_data(train, Settings()).fingerprint() is None
    given = source_data(train, settings({"source": "impressions"}), impressions=SHOWN)
    assert given.impressions is SHOWN


def test_fingerprints_tell_contents_apart():
    labels = np.array([0, 1])
    prints = [
        one.fingerprint()
        for one in (
            NOTHING,
            SourceData({"a": labels}),
            SourceData({"b": labels}),
            SourceData({"a": labels[::-1]}),
            SourceData(impressions=SHOWN),
            SourceData({"a": labels}, SHOWN),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert prints[1] == SourceData({"a": labels.copy()}).fingerprint()


def test_all_that_is_missing_is_one_error(features):
    train = Interactions.from_codes([0, 1], [0, 1])
    asked = settings(
        {"source": "same-group", "groups": ["market", "region"]},
        {"source": "same-group", "groups": "market"},
        {"source": "explicit"},
        {"source": "impressions"},
    )
    with pytest.raises(FastnegError) as caught:
        source_data(train, asked)
    text = str(caught.value)
    assert text.count("'market'") == text.count("'region'") == 1
    for part in ("--items FILE", "--negatives FILE", "--event-column NAME"):
        assert part in text
    with pytest.raises(FastnegError, match="feature 'region'; categorical ones: 'market'; the sou"):
        source_data(train, asked, item_features=features, impressions=SHOWN)
    for name, kind in (("year", "numeric"), ("tags", "multi")):
        one = settings({"source": "same-group", "groups": name})
        with pytest.raises(FastnegError, match=f"{name!r} is {kind} .--item-kind {name}=categ"):
            source_data(train, one, item_features=features)
    none = FeatureTable.from_table({"id": [1, 2], "year": [1, 2]}, ids=[1, 2])
    with pytest.raises(FastnegError, match="categorical ones: none"):
        source_data(
            train, settings({"source": "same-group", "groups": "market"}), item_features=none
        )
