"""The rules of measuring, on sides whose times are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench import report, rounds
from bench.report import Goal, Group, Row, compared
from bench.rounds import Side, Timing, measure, qualified


def timing(kept: list[bool]) -> Timing:
    times = {
        ("floor", 1): [1.0, 2.0, 3.0, 10.0],
        ("ours", 1): [2.0, 2.0, 2.0, 2.0],
        ("ours", 2): [1.0, 1.0, 1.0, 4.0],
    }
    return Timing(times, kept)


def test_ratio_is_the_median_of_paired_ratios() -> None:
    spread = timing([True] * 4).ratio("floor", "ours")
    assert spread.median == pytest.approx(1.25)  # of 0.5, 1, 1.5, 5; not the ratio of medians
    assert (spread.low, spread.high) == pytest.approx((0.875, 2.375))
    assert (spread.kept, spread.discarded) == (4, 0)


def test_rounds_without_a_second_core_are_discarded_and_counted() -> None:
    found = timing([True, False, True, False])
    assert found.ratio("ours", "ours", 1, 2).median == pytest.approx(2.0)
    assert found.figure("ours", 2)[3:] == (2, 2)
    assert found.figure("ours", 1)[3:] == (4, 0)  # one thread needs no second core
    nothing = timing([False] * 4).figure("ours", 2)
    assert math.isnan(nothing.median)
    assert nothing.discarded == 4


def test_sides_are_interleaved_and_their_order_rotates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "second_core", lambda: True)
    seen: list[str] = []
    sides = [Side(name, lambda name=name: seen.append(name), calls=1) for name in "abc"]  # type: ignore[misc]
    found = measure(sides, rounds=4)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab" + "abc"  # warm, then four rounds
    assert {len(values) for values in found.times.values()} == {4}


def test_more_rounds_follow_where_the_second_core_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "second_core", lambda: False)
    found = measure([Side("a", lambda: None, threads=2, calls=1)], rounds=5)
    assert found.two_cores == [False] * 10
    assert measure([Side("a", lambda: None, calls=1)], rounds=5).two_cores == [True] * 5


def test_qualified_keeps_the_fast_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {("a", 1): 1.0, ("b", 1): 1.2, ("c", 1): 1.3, ("a", 2): 9.0, ("c", 2): 1.0}
    sides = [Side(name, lambda: None, threads=threads) for name, threads in known]
    fixed = Timing({key: [value] * 3 for key, value in known.items()}, [True] * 3)
    monkeypatch.setattr(rounds, "measure", lambda *_, **__: fixed)
    assert [side.key for side in qualified(sides)] == [("a", 1), ("b", 1), ("c", 2)]


def row(**changes: Any) -> Row:
    found = timing([True] * 4)
    common = {"against": "floor", "floor": True, "goal": Goal(0.8)}
    figures = (found.figure("ours"), found.figure("floor"), found.ratio("floor", "ours"))
    return compared("draws", "10 items", 1, *figures, **{**common, **changes})


def test_a_result_that_beats_its_floor_is_flagged() -> None:
    assert "BEATS ITS FLOOR" in row().note
    assert "BEATS ITS FLOOR" not in row(floor=False).note


def test_goals() -> None:
    assert row().reached is True
    assert row(goal=Goal(1.3)).reached is False
    assert row(goal=Goal(1.3, at_least=False)).reached is True
    assert row(goal=None).reached is None
    assert Goal(1 / 1.1).text("x") == "≥ 0.909x"
    assert Goal(15_000, at_least=False).text(" ns") == "≤ 15,000 ns"


def test_only_the_groups_that_ran_are_replaced(tmp_path: Any) -> None:
    def stored(name: str) -> dict[str, Any]:
        group = Group(f"Title of {name}", [row()], ["a | note"])
        facts = {"machine": {"cores": "2"}, "when": "2000-01-01", "seconds": 1.0}
        return {**report.as_json(group), **facts}

    kept = {"groups": {"one": stored("one"), "two": stored("two")}}
    report.write(tmp_path, kept, ["one", "two"], quick=False)
    again = report.load(tmp_path / "results.json")
    assert again == kept
    again["groups"]["two"] = {**stored("new"), "machine": {"cores": "4"}}
    again["groups"]["two"]["when"] = "2000-01-02"
    report.write(tmp_path, again, ["one", "two"], quick=False)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page.index("Title of one") < page.index("Title of new")
    assert "Title of two" not in page
    assert "Measured elsewhere: cores 2" in page
    assert "Goals: 2 of 2 reached." in page
    assert "1.25 (0.88 to 2.38)" in page
