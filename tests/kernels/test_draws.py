"""Every drawing kernel against Python integers, word for word, whatever the filters say."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import count_classes, draws, wide_draws
from fastneg.kernels.alias_build import fill_part, fill_table
from fastneg.kernels.complement import finish_by_mass, running_sums
from fastneg.samplers.exclusion import build_filters, no_filters
from tests.naive import samplers as naive

N = 9
KEY = 0x1234_5678_9ABC_DEF1
SALT = 0xFEDC_BA98_7654_3210
LISTS = [[], [0], [N - 1], [2, 3, 4], [0, 1, 3, 4, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4]]
OWNER = [-1, 0, 1, 2, 3, 4, 5, 6] * 9 + [3]  # more rows than one block of 64
ROWS = [b if b % 3 else 2**40 + b for b in range(len(OWNER))]
MASSES = [7 << 32, 0, 1 << 31, 1 << 30, 1, 1 << 28, 3 << 28, 1 << 20, 0]
MASSES[0] += (N << 32) - sum(MASSES)
EVERYWHERE = np.zeros((0, 0), dtype=np.int8)
WIDTHS = [1, 5, 31, 64, 70, 104]  # less than a block of 64 cells, one, and more
# by list: list 2 is hopeless by decree, list 5 gives up early
ATTEMPTS = [16, 16, 0, 16, 16, 2, 1, 16]

indptr = frozen(np.cumsum([0, *map(len, LISTS)]))
excluded = frozen(np.array([i for ids in LISTS for i in ids]))
owner = frozen(np.array(OWNER))
rows = frozen(np.array(ROWS))
attempts = frozen(np.array(ATTEMPTS, dtype=np.int8))
masses = np.array(MASSES, dtype=np.uint64)
cells = np.empty(N, dtype=np.uint64)
fill_table(masses, cells)
masses.setflags(write=False)
cells.setflags(write=False)


def _known(b: int) -> list[int]:
    return LISTS[OWNER[b]] if OWNER[b] >= 0 else []


def _filters(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """No filters; exact-sized ones; ones so small that most ids seem to be listed."""
    filters = no_filters(len(LISTS)) if kind == "none" else build_filters(indptr, excluded, 1 << 20)
    metas, words = np.array(filters.metas), np.array(filters.words)
    if kind == "crowded":
        words |= np.uint64(0x5555_5555_5555_5555)
    metas[np.array(ATTEMPTS) == 0] = no_filters(1).metas[0]
    return frozen(metas), frozen(words)


def _checker(width: int) -> np.ndarray:
    """Every other cell belongs to 3."""
    where = np.indices((len(OWNER), width)).sum(axis=0) % 2 == 0
    return np.where(where, 3, 5).astype(np.int8)


def _source(tagged: bool, width: int) -> np.ndarray:
    return _checker(width) if tagged else EVERYWHERE


def _agree(got: np.ndarray, expected: list[list[int]], source: np.ndarray) -> None:
    table = got.reshape(len(OWNER), -1)
    mine = np.ones(table.shape, bool) if source.size == 0 else source == 3
    np.testing.assert_array_equal(table, np.where(mine, expected, -9))


each_way = pytest.mark.parametrize("kind", ["none", "built", "crowded"])
each_width = pytest.mark.parametrize("width", WIDTHS)
each_source = pytest.mark.parametrize("tagged", [False, True], ids=["all", "some"])


@each_way
@each_width
@each_source
def test_uniform(kind: str, width: int, tagged: bool) -> None:
    first, source, items = (
        100 * (width == 5),
        _source(tagged, width),
        np.full(len(OWNER) * width, -9),
    )
    draws.draw_uniform(
        N, indptr, excluded, *_filters(kind), attempts, owner, np.uint64(KEY), rows, first, source,
        3, items,
    )  # fmt: skip
    expected = [
        [
            naive.uniform_draw(N, _known(b), KEY, ROWS[b], first + d, attempts=ATTEMPTS[OWNER[b]])
            for d in range(width)
        ]
        for b in range(len(OWNER))
    ]
    _agree(items, expected, source)
    if not tagged:
        by_rows = np.full(len(OWNER) * width, -9)
        wide_draws.draw_uniform_rows(
            N, indptr, excluded, *_filters(kind), attempts, owner, np.uint64(KEY), rows, first,
            by_rows,
        )  # fmt: skip
        np.testing.assert_array_equal(by_rows, items)


def test_uniform_over_more_than_32_bits() -> None:
    size, width = 2**40, 40
    items = np.full(len(OWNER) * width, -9)
    draws.draw_uniform(
        size, indptr, excluded, *_filters("built"), attempts, owner, np.uint64(KEY), rows, 0,
        EVERYWHERE, 3, items,
    )  # fmt: skip
    expected = [
        [(naive.word(KEY, ROWS[b], d) * size) >> 64 for d in range(width)]
        for b in range(len(OWNER))
    ]
    hopeful = np.array(ATTEMPTS)[owner] > 0
    np.testing.assert_array_equal(items.reshape(-1, width)[hopeful], np.array(expected)[hopeful])


def _finish(items: np.ndarray, unresolved: int, first: int, source: np.ndarray) -> None:
    assert unresolved == (items == -1).sum()
    assert unresolved > 0
    starts = np.empty(N, dtype=np.uint64)
    running_sums(masses, 1, starts)
    mass = np.array([*(sum(MASSES[i] for i in ids) for ids in LISTS), 0], dtype=np.uint64)
    no_tables = frozen(np.full(len(LISTS) + 1, -1))
    finish_by_mass(
        masses, frozen(starts), 1, np.uint64(N << 32), indptr, excluded, frozen(mass), attempts,
        no_tables, no_tables[:1], frozen(np.zeros(0, np.uint32)), frozen(np.zeros(0, np.uint64)),
        owner, np.uint64(KEY), rows, first, source, 3, items,
    )  # fmt: skip


@each_way
@each_width
@each_source
def test_table_with_rejection_and_without(kind: str, width: int, tagged: bool) -> None:
    first, source, items = (
        100 * (width == 5),
        _source(tagged, width),
        np.full(len(OWNER) * width, -9),
    )
    unresolved = draws.draw_table(
        cells, indptr, excluded, *_filters(kind), attempts, owner, np.uint64(KEY), rows, first,
        source, 3, items,
    )  # fmt: skip
    if not tagged:
        by_rows = np.full(len(OWNER) * width, -9)
        left = wide_draws.draw_table_rows(
            cells, indptr, excluded, *_filters(kind), attempts, owner, np.uint64(KEY), rows, first,
            by_rows,
        )  # fmt: skip
        assert left == unresolved
        np.testing.assert_array_equal(by_rows, items)
    _finish(items, unresolved, first, source)
    expected = [
        [
            naive.table_draw(
                cells.tolist(), MASSES, _known(b), KEY, ROWS[b], first + d,
                attempts=ATTEMPTS[OWNER[b]],
            )
            for d in range(width)
        ]
        for b in range(len(OWNER))
    ]  # fmt: skip
    _agree(items, expected, source)


CLASS_SIZES = [1, 3, 0, 4, 1]  # the last one has no mass
ORDER = [4, 8, 0, 3, 7, 1, 2, 6, 5]
SPANS = [(int(s), c) for s, c in zip(np.cumsum([0, *CLASS_SIZES]), CLASS_SIZES, strict=False)]


def _class_cells() -> np.ndarray:
    class_masses = np.array([5 << 39, 3 << 38, 0, 7 << 37, 0], dtype=np.uint64)
    class_masses[0] += np.uint64((5 << 40) - int(class_masses.sum()))
    table = np.empty(5, dtype=np.uint64)
    heavy = int(np.argmax(class_masses >= count_classes.CELL))
    fill_part(class_masses, 0, 5, heavy, class_masses[heavy], count_classes.ALIAS_BITS, table)
    return frozen(table)


@each_way
@each_width
@each_source
@pytest.mark.parametrize("ordered", [False, True])
def test_classes(kind: str, width: int, tagged: bool, ordered: bool) -> None:
    first, source, items = (
        100 * (width == 5),
        _source(tagged, width),
        np.full(len(OWNER) * width, -9),
    )
    table, order = _class_cells(), [] if ordered else ORDER
    spans = frozen(np.array([(f << 32) | c for f, c in SPANS], dtype=np.uint64))
    draws.draw_classes(
        table, spans, frozen(np.array(order, dtype=np.uint32)), indptr, excluded, *_filters(kind),
        attempts, owner, np.uint64(KEY), np.uint64(SALT), rows, first, source, 3, items,
    )  # fmt: skip

    def draw(b: int, d: int) -> int:
        for attempt in range(ATTEMPTS[OWNER[b]]):
            place = naive.place_of(KEY, ROWS[b], first + d, attempt)
            item = naive.class_draw(table.tolist(), SPANS, order, place, SALT)
            if item not in _known(b):
                return item
        return -1

    expected = [[draw(b, d) for d in range(width)] for b in range(len(OWNER))]
    _agree(items, expected, source)
