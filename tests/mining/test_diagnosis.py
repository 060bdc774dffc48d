"""A diagnosis as a table, a picture, JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.diagnosis import RankBucket, WindowDiagnosis, WindowPopularity

GAPS = (-1.0, -0.5, 0.25, 0.5, 1.5)
WINDOW = RankBucket(
    101, 500, 400_000, 500, 0.25, 0.00125, 0.0014, 12.5, GAPS, GAPS, 0.7654, 0.8123, 0.4567
)
BUCKETS = (
    RankBucket(1, 100, 100_000, 1_000, 0.5, 0.01, 0.0112, 100.0, GAPS, GAPS, 0.99, 0.9, 0.6),
    RankBucket(101, 10_000, 9_900_000, 1_000, 0.5, 0.000101, 0.00011, 1.01),
    RankBucket(10_001, 12_345, 2_300_000, 0, 0.0, 0.0, 1.3e-6, 0.0),
)
FOUND = WindowDiagnosis(
    window=WINDOW,
    buckets=BUCKETS,
    verdict="unsafe",
    reason="one in 800 is a held-out positive, one in 1,000 is allowed",
    suggested=(151, 550),
    suggestion_reason="the earliest where at most one in 1,000 is a held-out positive",
    popularity=WindowPopularity(0.8123, 0.9, 0.052, 0.4112, 0.01, 0.1, 9_876, 0.3),
    duplicates=1_234,
    max_risk=0.001,
    base_rate=0.0001,
    num_queries=1_000,
    num_with_held_out=5_432,
    num_given=6_000,
    num_items=12_345,
    num_held_out=2_000,
    num_in_training=17,
    num_without_positives=3,
    depth=1_000,
    metric="ip",
    seed=0,
)
TABLE = """\
queries     1,000 of 5,432 with held-out positives; 6,000 given, 12,345 items, ip
held-out    2,000 positives; one in 10,000 uniform draws is one; 17 left out that training has as well
window      ranks 101 to 500
verdict     UNSAFE: one in 800 is a held-out positive, one in 1,000 is allowed
suggested   ranks 151 to 550: the earliest where at most one in 1,000 is a held-out positive
popularity  percentile 0.81 (catalog 0.50), 5.2% and 41.1% among the top 1 % and 10 %; 9,876 distinct items
duplicates  1,234 of 400,000 members equal a positive; drop_duplicates leaves them out
overlap     0.457 of the other model's (Jaccard)

ranks          held-out  share        risk         up to  x uniform  gap 5 %  gap 50 %  above  popularity  overlap
1-100             1,000  50.0%    1 in 100       1 in 89      100.0       -1     +0.25  99.0%        0.90    0.600
101-10,000        1,000  50.0%  1 in 9,901    1 in 9,091        1.0
10,001-12,345         0   0.0%           0  1 in 769,231        0.0
window              500  25.0%    1 in 800      1 in 714       12.5       -1     +0.25  76.5%        0.81    0.457"""  # noqa: E501


def test_the_table() -> None:
    assert str(FOUND) == repr(FOUND) == TABLE


def test_columns_without_anything_are_left_out() -> None:
    bare = RankBucket(1, 5, 50, 0, None, None, None, None)
    nothing = dataclasses.replace(
        FOUND, window=bare, buckets=(bare,), popularity=None, suggested=None, num_held_out=0,
        suggestion_reason="0 held-out positives in all; 30 are the least", num_in_training=0,
    )  # fmt: skip
    lines = str(nothing).splitlines()
    assert lines[-3:] == ["ranks   held-out", "1-5            0", "window         0"]
    assert "suggested   none: 0 held-out positives in all; 30 are the least" in lines
    assert "held-out    0 positives" in lines


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text("old")
    FOUND.save_json(path)
    assert [one.name for one in tmp_path.iterdir()] == ["found.json"]
    values = json.loads(path.read_text())
    assert values == FOUND.to_dict()
    assert values["safe"] is False
    assert values["window"]["gap_to_lowest"] == list(GAPS)
    assert values["buckets"][1]["gap_to_lowest"] is None
    assert values["suggested"] == [151, 550]
    assert values["confidence"] == 0.95
    names = {field.name for field in dataclasses.fields(WindowDiagnosis)}
    assert values.keys() == names | {"safe", "quantiles", "confidence"}


def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FastnegError, match=r"cannot write .*nowhere.*: No such file"):
        FOUND.save_json(tmp_path / "nowhere" / "found.json")
    path = tmp_path / "found.json"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FastnegError, match=r"found.json: No space left"):
        FOUND.save_json(path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["found.json"]


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "found.png"
    figure = FOUND.plot(path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert [one.name for one in tmp_path.iterdir()] == ["found.png"]
    risk, shares, gaps, popularity = figure.axes
    np.testing.assert_array_equal(risk.lines[0].get_ydata(), [0.01, 0.000101])
    np.testing.assert_allclose(shares.lines[0].get_ydata(), [0.5, 1.0, 1.0])
    np.testing.assert_allclose(gaps.lines[0].get_ydata(), [0.25])
    np.testing.assert_allclose(popularity.lines[0].get_ydata(), [0.9])
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    FOUND.plot(tmp_path / "found.svg")
    assert "<svg" in (tmp_path / "found.svg").read_text()
    with pytest.raises(FastnegError, match=r"found.doc has the suffix '.doc'; give .png"):
        FOUND.plot(tmp_path / "found.doc")
    with pytest.raises(FastnegError, match="cannot write"):
        FOUND.plot(tmp_path / "nowhere" / "found.png")
    monkeypatch.delitem(sys.modules, "fastneg.mining.diagnosis_plot")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FastnegError, match=r"pip install fastneg\[plot\]"):
        FOUND.plot()


def test_pictures_of_little(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    queries, items = np.ones((3, 2)), np.ones((9, 2))
    for held_out in (None, ([0, 1, 2, 2], [4, 5])):
        for window in ((2, 5), (50, 60)):
            found = diagnose_window(queries, items, None, held_out, window=window)
            found.plot(tmp_path / "little.png")
    one = diagnose_window(queries[:1], items[:1], None, ([0, 1], [0]), window=(1, 1))
    one.plot(tmp_path / "one.png")
