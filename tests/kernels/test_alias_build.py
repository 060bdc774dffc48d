"""Alias tables in integers: what a table gives is what its masses say, to the last unit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.kernels import alias_build as build
from fastneg.kernels.alias import table_masses
from tests.naive import samplers as naive
from tests.naive.tables import CELL, masses_of, table_of


def _check(masses: np.ndarray) -> None:
    cells = table_of(masses)
    assert naive.cell_masses(cells.tolist()) == masses.tolist()
    back = np.zeros(len(masses), dtype=np.uint64)
    table_masses(cells, back)
    np.testing.assert_array_equal(back, masses)
    low = cells & np.uint64(0xFFFFFFFF)
    assert (low < len(masses)).all()


PART = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-9, 1.0), st.floats(1.0, 1e6))


@given(st.lists(PART, min_size=1, max_size=60).filter(any))
def test_a_table_gives_its_masses_exactly(parts: list[float]) -> None:
    _check(masses_of(parts))


@pytest.mark.parametrize(
    "masses",
    [
        [CELL],
        [0, 2 * CELL],
        [2 * CELL, 0],
        [1, 2 * CELL - 1],
        [2 * CELL - 1, 1],
        [0, 0, 0, 4 * CELL],
        [4 * CELL, 0, 0, 0],
        [CELL] * 7,
        [CELL - 1, CELL, CELL + 1],
        [CELL + 1, CELL, CELL - 1],
        [CELL + 1] * 3 + [CELL - 1] * 3,
        [1] * 8 + [9 * CELL - 8],
    ],
)
def test_awkward_masses(masses: list[int]) -> None:
    _check(np.array(masses, dtype=np.uint64))


def test_the_check_sees_a_table_that_is_off_by_one() -> None:
    masses = masses_of([1.0, 2.0, 3.0, 0.5])
    cells = table_of(masses)
    cells[0] += np.uint64(CELL)  # one unit from an alias to its host
    assert naive.cell_masses(cells.tolist()) != masses.tolist()


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1e9), min_size=1, max_size=50),
    st.floats(1e-3, 1e3),
    st.sampled_from([1.0, 0.25]),
)
def test_floor_sums(weights: list[float], scale: float, factor: float) -> None:
    # a block and a bit, so that the second block is not whole
    weights = [*([0.0] * build.BLOCK), *weights]
    sums, counts = np.empty(2, dtype=np.uint64), np.empty(2, dtype=np.int64)
    for b in (0, 1):
        build.floor_sums(np.array(weights), factor, scale, b, sums[b : b + 1], counts[b : b + 1])
    expected = [0 if w == 0 else max(1, int(w * factor * scale)) for w in weights]
    assert sums.tolist() == [0, sum(expected)]
    assert counts.tolist() == [0, sum(mass > 0 for mass in expected)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**34), min_size=1, max_size=40).filter(any),
    st.sampled_from([0, 1, 63, 64, 200, build.BLOCK, build.BLOCK + 77]),
    st.integers(0, 30_000),
    st.booleans(),
)
def test_masses_are_floors_and_the_rest_is_spread_evenly(
    last: list[int], ahead: int, rest: int, gap: bool
) -> None:
    """``ahead`` positive entries take the way side by side, unless a ``gap`` of 0 is among them."""
    floors = [*([1, 7, 1 << 33][i % 3] for i in range(ahead)), *last]
    if gap:
        floors[len(floors) // 3] = 0
        if not any(floors):
            return
    weights = np.array(floors, dtype=np.float64)
    masses = np.empty(len(floors), dtype=np.uint64)
    positive = sum(mass > 0 for mass in floors)
    each, left = divmod(rest, positive)
    blocks = -(-len(floors) // build.BLOCK)
    surplus, deficit = np.zeros(blocks, dtype=np.uint64), np.zeros(blocks, dtype=np.uint64)
    relative, total = np.zeros(blocks), np.zeros(blocks)
    for b in range(blocks):  # a block goes on where the one before ended
        part, own = slice(b, b + 1), floors[b * build.BLOCK : (b + 1) * build.BLOCK]
        error = sum(mass > 0 for mass in floors[: b * build.BLOCK]) * left % positive
        build.whole_blocks(
            weights * 4.0, 0.25, 1.0, 1.0, each, left, positive, b, np.array([error]),
            np.array([sum(mass > 0 for mass in own)]), np.empty(64, np.int64), np.empty(64),
            masses, surplus[part], deficit[part], relative[part], total[part],
        )  # fmt: skip
    expected, place = [], 0
    for mass in floors:  # Bresenham's line, in whole numbers
        extra = 0
        if mass > 0:
            extra = each + (place + 1) * left // positive - place * left // positive
            place += 1
        expected.append(mass + extra)
    assert masses.tolist() == expected
    assert sum(expected) == sum(floors) + rest
    added = masses.astype(int) - np.array(floors)
    for b in range(blocks):
        part = slice(b * build.BLOCK, (b + 1) * build.BLOCK)
        assert surplus[b] == sum(max(0, int(mass) - CELL) for mass in masses[part])
        assert deficit[b] == sum(max(0, CELL - int(mass)) for mass in masses[part])
        assert total[b] == added[part].sum()
        some = weights[part] > 0
        worst = (added[part][some] / weights[part][some]).max(initial=0.0)
        assert relative[b] == pytest.approx(worst, rel=1e-12)


@given(
    st.lists(st.sampled_from([0.0, -0.0, 5e-324, 1e-3, 2.5, 1e300]), min_size=1, max_size=50),
    st.booleans(),
    st.sampled_from([None, -1.0, np.nan, -np.nan, np.inf, -np.inf, -5e-324]),
)
def test_survey(values: list[float], second: bool, bad: float | None) -> None:
    weights = np.array([*([3.0] * (build.BLOCK * second)), *values])
    if bad is not None:
        weights[len(weights) // 2] = bad
    blocks = 1 + second
    sums = np.empty(blocks)
    least, largest = np.empty(blocks, np.uint64), np.empty(blocks, np.uint64)
    for b in range(blocks):
        part = slice(b, b + 1)
        build.survey_blocks(weights, b, np.empty(64), sums[part], least[part], largest[part])
    no_weight = largest.max() >= np.array([np.inf]).view(np.uint64)[0]
    assert no_weight == (bad is not None)
    if bad is not None:
        return
    for b in range(blocks):
        part = weights[b * build.BLOCK : (b + 1) * build.BLOCK]
        assert sums[b] == _in_lanes(part)
        assert largest[b : b + 1].view(np.float64)[0] == part.max()
        if part.max() > 0:
            smallest = (least[b : b + 1] + np.uint64(1)).view(np.float64)[0]
            assert smallest == part[part > 0].min()


def _in_lanes(values: np.ndarray) -> float:
    lanes = [0.0] * 8
    for i, value in enumerate(values):  # in order: the very same bits
        lanes[i % 8] += value
    total = 0.0
    for lane in lanes:
        total += lane
    return total


@given(st.integers(1, 3 * build.BLOCK), st.floats(0, 1))
@settings(max_examples=15)
def test_block_sums(size: int, limit: float) -> None:
    weights = np.random.default_rng(size).random(size)
    weights[::7] = 0.0
    blocks = -(-size // build.BLOCK)
    sums, small = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    half = blocks // 2
    whole = np.array(weights)
    build.block_sums(whole, 0.5, limit, sums[:half], small[:half], 0)
    build.block_sums(whole, 0.5, limit, sums[half:], small[half:], half)
    for block in range(blocks):
        part = weights[block * build.BLOCK : (block + 1) * build.BLOCK] * 0.5
        assert sums[block] == _in_lanes(np.where(part >= limit, part, 0.0))
        assert small[block] == np.count_nonzero((part > 0) & (part < limit))


@given(
    st.lists(PART, min_size=2, max_size=60).filter(any),
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
)
def test_parts_of_the_sweep_fill_the_table_of_the_whole(
    parts: list[float], cuts: list[int]
) -> None:
    masses = masses_of(parts)
    cells = np.zeros(len(masses), dtype=np.uint64)
    borders = sorted({0, *[min(cut, len(masses)) for cut in cuts]} - {len(masses)})
    borders.append(len(masses))
    for start, stop in itertools.pairwise(borders):
        given = sum(max(0, CELL - int(mass)) for mass in masses[:start])
        if start == 0:
            heavy = int(np.argmax(masses >= CELL))
            held = int(masses[heavy])
        else:
            heavy, held = build.find_heavy(masses, 0, np.uint64(0), np.uint64(given))
        build.fill_part(masses, start, stop, heavy, np.uint64(held), 32, cells)
    np.testing.assert_array_equal(cells, table_of(masses))


@pytest.mark.parametrize("light", [True, False])
def test_looking_ahead_with_and_without_compression(
    monkeypatch: pytest.MonkeyPatch, light: bool
) -> None:
    rng = np.random.default_rng(5)
    masses = rng.integers(0, 2 * CELL, 3000).astype(np.uint64)
    masses[::11] = CELL
    plain = getattr(build._look_ahead, "py_func", build._look_ahead)
    monkeypatch.setattr(build, "HAS_COMPRESS", False)
    place, lists = 3, [np.zeros((2, 2 * build._AHEAD + 16), np.uint64) for _ in range(2)]
    found = []
    while place < len(masses) - 5:
        ids, sizes = lists[0]
        ends = build._look_ahead(masses, place, 2995, np.uint64(CELL), light, ids, sizes, 7)
        # the compiled one may stop a few entries earlier, where a whole vector has no room
        ids, sizes = lists[1]
        assert plain(masses, place, ends[0], np.uint64(CELL), light, ids, sizes, 7) == ends
        np.testing.assert_array_equal(lists[0][:, 7 : ends[1]], lists[1][:, 7 : ends[1]])
        assert ends[0] > place
        found += lists[0][0, 7 : ends[1]].tolist()
        place = ends[0]
    wanted = np.flatnonzero((masses[:2995] < CELL) == light)
    assert found == wanted[wanted >= 3].tolist()
