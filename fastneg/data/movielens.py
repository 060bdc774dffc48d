"""MovieLens-100K (Harper and Konstan 2015), out of the RecBole wheel.

943 users, 1,682 films, 100,000 ratings with times; age, gender, occupation and postcode of the
users; release year and genres of the films. Collected by GroupLens, University of Minnesota, for
research use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastneg import checks
from fastneg.data.datasets import Dataset, Wheel, fetch_wheel, read_member
from fastneg.data.features import FeatureTable
from fastneg.interactions import Interactions
from fastneg.text_files import read_text

WHEEL = Wheel(
    "recbole",
    "1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
_MEMBER = "recbole/dataset_example/ml-100k/ml-100k"


def load_movielens_100k(
    cache: str | Path | None = None, *, min_rating: float | None = None
) -> Dataset:
    """MovieLens-100K, downloaded on first use (2.1 MB) and kept in a cache.

    That somebody watched and rated a film is the positive, whatever the rating: every row has
    weight 1. With ``min_rating`` rows keep their rating (1 to 5) as weight where it is at least
    that, and lower ratings become explicit negatives (weight 0).

    Times are seconds since 1970. User features: age (numeric), gender, occupation, zip_code
    (categorical). Item features: release_year (numeric, missing for two films), genres (multi).
    ``item_names`` are the titles.

    Args:
        cache: folder for the download; default: ``fastneg`` in $XDG_CACHE_HOME or ~/.cache.
        min_rating: 1 to 5, or None.

    Raises:
        DatasetUnavailableError: no registry answers, or the file is not the one expected.
    """
    call = "load_movielens_100k"
    if min_rating is not None:
        min_rating = checks.as_number(
            min_rating, call=call, name="min_rating", minimum=1, maximum=5
        )
    wheel = fetch_wheel(WHEEL, cache)

    def read(suffix: str, *text: str) -> Any:
        content = read_member(wheel, f"{_MEMBER}.{suffix}", what="MovieLens-100K")
        return read_text(content, None, call, text, "\t", atomic=True)

    ratings, users = read("inter"), read("user", "zip_code")
    films = read("item", "movie_title", "release_year", "class")
    rating = ratings.column("rating").to_numpy()
    weights = None if min_rating is None else np.where(rating >= min_rating, rating, 0)
    interactions = Interactions.from_pairs(
        ratings.column("user_id"),
        ratings.column("item_id"),
        weights=weights,
        times=ratings.column("timestamp").cast(pa.int64(), safe=False),
        user_ids=users.column("user_id"),
        item_ids=films.column("item_id"),
    )
    user_features = FeatureTable.from_table(
        users,
        ids=interactions.user_ids,
        id_column="user_id",
        columns={"age": "numeric", "zip_code": "categorical"},
    )
    year = films.column("release_year")
    is_year = pc.match_substring_regex(year, r"^\d{4}$")
    columns = {
        "item_id": films.column("item_id"),
        "release_year": pc.if_else(is_year, year, pa.scalar(None, year.type)),
        "genres": films.column("class"),
    }
    item_features = FeatureTable.from_table(
        columns,
        ids=interactions.item_ids,
        id_column="item_id",
        separator=" ",
        columns={"release_year": "numeric", "genres": "multi"},
    )
    titles = films.column("movie_title").to_numpy()
    return Dataset("movielens-100k", interactions, user_features, item_features, titles)
