"""Tables laid end to end: exact in every segment, and draws equal to a slow twin's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels.segments import build_segments, draw_segments, finish_segments
from fastneg.samplers.grouped import GroupTables
from tests.naive import samplers as naive


def _built(parts: list[list[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    segments = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    weights = np.array([w for part in parts for w in part], dtype=np.float64)
    masses, cells = np.zeros(len(weights), np.uint64), np.zeros(len(weights), np.uint64)
    half = len(parts) // 2  # the tables do not depend on how the segments are shared out
    build_segments(frozen(segments), half, len(parts), frozen(weights), masses, cells)
    build_segments(frozen(segments), 0, half, frozen(weights), masses, cells)
    return segments, masses, cells


def _assert_exact(parts: list[list[float]]) -> None:
    segments, masses, cells = _built(parts)
    for s, part in enumerate(parts):
        mine = [int(m) for m in masses[segments[s] : segments[s + 1]]]
        assert sum(mine) == len(part) << 32
        assert naive.cell_masses(cells[segments[s] : segments[s + 1]].tolist()) == mine
        for mass, due in zip(mine, naive.apportion(part), strict=True):
            assert mass >= 1
            assert abs(mass - due) <= 2 + len(part) + due / 2**45


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.floats(0, 1e300, exclude_min=True), min_size=1, max_size=12),
        min_size=1,
        max_size=9,
    )
)
def test_every_table_is_exact(parts: list[list[float]]) -> None:
    _assert_exact(parts)


def test_awkward_tables() -> None:
    rng = np.random.default_rng(0)
    _assert_exact([[5e-324], [5e-324, 1e308], [1.0] * 7, [1e-12, 1.0, 1.0], [1e308] * 3])
    _assert_exact([[1e-30] * 5 + [1.0], (1 / np.arange(1, 9001) ** 1.5).tolist()])
    _assert_exact([rng.pareto(1.0, size).tolist() for size in (1, 2, 3, 50, 4097)])


def _tables() -> tuple[GroupTables, np.ndarray, list[np.ndarray]]:
    weights = np.array([5.0, 0, 1, 3, 3, 9, 0, 2, 1e-9, 4])
    levels = [np.array([2, 2, 2, 2, 2, 9, 9, -1, 9, 5]), np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, -1])]
    return GroupTables(levels, weights), weights, levels


def test_items_stand_in_their_segments() -> None:
    tables, weights, levels = _tables()
    everything = np.zeros(10, dtype=np.int64)
    for level, labels in enumerate([*levels, everything]):
        for label in np.unique(labels[labels != -1]):
            inside = np.flatnonzero((labels == label) & (weights > 0))
            places = tables.places_of[level, inside]
            assert (np.diff(places) == 1).all()
            assert tables.order[places].tolist() == inside.tolist()
            if level < len(levels):
                (segment,) = np.unique(tables.groups[level, labels == label])
            else:
                segment = len(tables.segments) - 2
            assert tables.segments[segment] == places[0]
            assert tables.segments[segment + 1] == places[-1] + 1
            law = weights[inside] / weights[inside].sum()
            np.testing.assert_allclose(np.exp(tables.log_q[level, inside]), law, atol=1e-9)
        outside = (labels == -1) | (weights == 0)
        assert (tables.places_of[level, outside] == -1).all()
        assert np.isneginf(tables.log_q[level, outside]).all()
    assert (tables.groups[0, 7], tables.groups[1, 9]) == (-1, -1)


@pytest.mark.parametrize("attempts", [0, 1, 3, 16])
@pytest.mark.parametrize("stride", [1, 2, 4, 16])
def test_draws_are_the_slow_twins(attempts: int, stride: int) -> None:
    tables, _, _ = _tables()
    ends = np.cumsum(np.add.reduceat(tables.masses, np.arange(0, len(tables.masses), stride)))
    sums = frozen(np.concatenate([np.zeros(1, np.uint64), ends[:-1]]))
    gone = [[], [0], [1], [0, 2], [1, 3], [0, 1, 2]]  # by place inside the segment
    cases = [
        (segment, out)
        for segment in range(len(tables.segments) - 1)
        for out in gone
        if all(p < tables.segments[segment + 1] - tables.segments[segment] for p in out)
        and len(out) < tables.segments[segment + 1] - tables.segments[segment]
    ]
    chosen = np.array([segment for segment, _ in cases])
    counts = np.array([len(out) for _, out in cases])
    starts = np.cumsum(counts) - counts
    places = np.array([tables.segments[s] + p for s, out in cases for p in out], dtype=np.int32)
    excluded_mass = np.array(
        [sum(int(tables.masses[tables.segments[s] + p]) for p in out) for s, out in cases],
        dtype=np.uint64,
    )
    key, rows, width, first = np.uint64(977), np.arange(len(cases)) * 5 + 2**40, 40, 3
    items = np.zeros((len(cases), width), dtype=np.int64)
    levels, tries = np.ones(len(cases), np.int8), np.full(len(cases), attempts, np.int8)
    source = np.full(items.shape, 4, dtype=np.int8)
    source[:, ::5] = 2
    shared = [frozen(a) for a in (chosen, levels, starts, counts, places)]
    draw_segments(
        tables.cells, tables.order, tables.segments, *shared, frozen(tries), key, frozen(rows),
        first, source, 4, items,
    )  # fmt: skip
    finish_segments(
        tables.masses, sums, stride, tables.order, tables.segments, *shared,
        frozen(excluded_mass), frozen(tries), key, frozen(rows), first, source, 4, items,
    )  # fmt: skip
    assert (items[:, ::5] == 0).all()
    assert (source[:, ::5] == 2).all()
    source[:, ::5] = 5
    assert (source == 5).all()  # base 4, level 1
    for b, (segment, out) in enumerate(cases):
        inside = slice(tables.segments[segment], tables.segments[segment + 1])
        cells, masses = tables.cells[inside].tolist(), tables.masses[inside].tolist()
        for d in set(range(width)) - set(range(0, width, 5)):
            place = naive.table_draw(
                cells, masses, out, int(key), int(rows[b]), first + d, attempts=attempts
            )
            assert items[b, d] == tables.order[inside][place]
