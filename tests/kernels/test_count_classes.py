"""Classes of equal counts: sorting into them, whole masses over them, draws word for word."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import count_classes
from fastneg.kernels.alias_build import fill_part
from tests.naive import samplers as naive

KEY = 0x0F1E_2D3C_4B5A_6978
SALT = 0x8796_A5B4_C3D2_E1F0
NO_ORDER = frozen(np.zeros(0, dtype=np.uint32))
COUNTS = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 0.5, 1e300, 5e-324, 7.25, 2.0**53])


def _count(values: np.ndarray, limit: int, slots: int) -> tuple[int, bool, np.ndarray, np.ndarray]:
    keys, used = np.zeros(slots, dtype=np.uint64), np.zeros(slots, dtype=np.int64)
    distinct, falling = count_classes.count_values(frozen(values), limit, keys, used)
    return distinct, falling, keys, used


@given(st.lists(COUNTS, max_size=80))
def test_values_are_counted_once_each(counts: list[float]) -> None:
    """Sixteen slots for ten values: some of them meet."""
    distinct, falling, keys, used = _count(np.array(counts, dtype=np.float64), 10, 16)
    expected = Counter(counts)  # 0.0 and -0.0 are one
    slots = np.flatnonzero(used)
    found = zip(keys[slots].view(np.float64).tolist(), used[slots].tolist(), strict=True)
    assert dict(found) == dict(expected)
    assert distinct == len(expected)
    assert falling == all(a >= b for a, b in itertools.pairwise(counts))


@pytest.mark.parametrize(
    ("counts", "distinct", "falling"),
    [
        ([], 0, True),
        ([3.0], 1, True),
        ([3.0, 3.0, 1.0, 0.0, -0.0], 3, True),
        ([-0.0, 0.0, -0.0], 1, True),
        ([1.0, 1.0, 2.0], 2, False),
        ([9.0, 8.0, 8.5], 3, False),
    ],
)
def test_values_that_never_rise(counts: list[float], distinct: int, falling: bool) -> None:
    assert _count(np.array(counts, dtype=np.float64), 4, 8)[:2] == (distinct, falling)


def test_one_value_more_than_the_limit_ends_it() -> None:
    values = np.array([5.0, 4.0, 4.0, 3.0, 2.0, 2.0, 1.0])
    assert _count(values, 5, 16)[:2] == (5, True)
    for limit in (1, 2, 3, 4):
        assert _count(values, limit, 16)[:2] == (limit + 1, False)
    keys = _count(values, 2, 16)[2]
    assert sorted(keys[keys > 0].view(np.float64)) == [4.0, 5.0]


@given(st.lists(COUNTS, min_size=1, max_size=60))
def test_items_by_class_ascending_inside(counts: list[float]) -> None:
    values = np.array(counts, dtype=np.float64)
    _, _, keys, used = _count(values, 10, 16)
    slots = np.flatnonzero(used)
    slots = slots[np.argsort(-keys[slots].view(np.float64), kind="stable")]
    class_of_slot = np.zeros(16, dtype=np.int64)
    class_of_slot[slots] = np.arange(len(slots))
    next_place = np.cumsum(used[slots]) - used[slots]
    order = np.empty(len(values), dtype=np.uint32)
    count_classes.order_by_class(frozen(values), keys, used, class_of_slot, next_place, order)
    assert order.tolist() == sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    np.testing.assert_array_equal(next_place, np.cumsum(used[slots]))


def _settle(sizes: list[int], masses: list[int], target: int) -> list[int]:
    numbers, out = np.array(sizes, dtype=np.int64), np.array(masses, dtype=np.uint64)
    by_size = frozen(np.argsort(-numbers, kind="stable"))
    count_classes.settle_masses(by_size, frozen(numbers), target, out)
    return [int(mass) for mass in out]


@pytest.mark.parametrize(
    ("sizes", "masses", "target", "settled"),
    [
        ([3, 1], [2, 1], 7, [2, 1]),  # nothing to do
        ([3, 1], [2, 1], 12, [3, 3]),  # the largest class first, the single item takes the rest
        ([3, 1], [10, 1], 27, [8, 3]),  # the heaviest gives too much, and some comes back
        ([1, 4], [100, 30], 217, [101, 29]),  # the heaviest is the larger class
        ([4, 1, 2], [0, 5, 3], 16, [0, 6, 5]),  # nothing for a class without mass
        ([1], [1], 1 << 50, [1 << 50]),
        ([1 << 31, 1], [1 << 19, 3], 1 << 50, [(1 << 19) - 1, 1 << 31]),
    ],
)
def test_settled_masses(
    sizes: list[int], masses: list[int], target: int, settled: list[int]
) -> None:
    assert sum(s * m for s, m in zip(sizes, settled, strict=True)) == target
    assert _settle(sizes, masses, target) == settled


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1 << 32)), max_size=30),
    st.integers(-1000, 5000),
)
def test_masses_sum_to_the_target(classes: list[tuple[int, int]], rest: int) -> None:
    sizes = [1, *(size for size, _ in classes)]
    masses = [1 << 31, *(mass for _, mass in classes)]
    target = sum(s * m for s, m in zip(sizes, masses, strict=True)) + rest
    settled = _settle(sizes, masses, target)
    assert sum(s * m for s, m in zip(sizes, settled, strict=True)) == target
    assert [mass == 0 for mass in settled] == [mass == 0 for mass in masses]
    # a class changes by no more than the rest of a class as large
    assert all(
        abs(after - before) * size <= abs(rest) + 50
        for size, before, after in zip(sizes, masses, settled, strict=True)
    )


@pytest.mark.parametrize("dtype", [np.uint64, np.uint16])
def test_values_of_classes_spread_over_items(dtype: type) -> None:
    sizes = [2, 1, 0, 3]
    spans = frozen(_spans(sizes))
    values = frozen(np.array([9, 7, 8, 5], dtype=dtype))
    out = np.full(8, 99, dtype=dtype)
    count_classes.spread_over_items(spans, NO_ORDER, values, out[1:7])
    assert out.tolist() == [99, 9, 9, 7, 5, 5, 5, 99]
    order = frozen(np.array([4, 0, 3, 1, 2, 5], dtype=np.uint32))
    count_classes.spread_over_items(spans, order, values, out[1:7])
    assert out.tolist() == [99, 9, 5, 5, 7, 9, 5, 99]


def _spans(sizes: list[int]) -> np.ndarray:
    starts = np.cumsum([0, *sizes])[:-1]
    return np.array([(int(f) << 32) | s for f, s in zip(starts, sizes, strict=True)], np.uint64)


SIZES = [1, 3, 40, 1, 0, 200, 7, 150, 98]  # 500 items
ORDER = np.random.default_rng(8).permutation(500).astype(np.uint32)
CLASS_BITS = frozen(np.arange(1000, 1000 + len(SIZES), dtype=np.uint32))


def _cells(num_cells: int) -> np.ndarray:
    """Cells over the nine classes; the fourth and the empty one have no mass."""
    parts = np.random.default_rng(4).integers(1, 1000, len(SIZES)).tolist()
    parts[3] = parts[4] = 0
    target = num_cells << 40
    masses = np.zeros(num_cells, dtype=np.uint64)
    masses[: len(parts)] = [part * target // sum(parts) for part in parts]
    masses[1] += np.uint64(target - int(masses.sum()))
    cells = np.empty(num_cells, dtype=np.uint64)
    heavy = int(np.argmax(masses >= count_classes.CELL))
    fill_part(frozen(masses), 0, num_cells, heavy, masses[heavy], count_classes.ALIAS_BITS, cells)
    return frozen(cells)


@pytest.mark.parametrize("num_cells", [9, 1024])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129, 200])
def test_draws_word_for_word(num_cells: int, ordered: bool, count: int) -> None:
    cells, spans = _cells(num_cells), frozen(_spans(SIZES))
    order = NO_ORDER if ordered else frozen(ORDER)
    pairs = [(int(span) >> 32, int(span) & 0xFFFF_FFFF) for span in spans]
    borders = np.cumsum(SIZES)
    place_of_item = np.arange(500) if ordered else np.argsort(ORDER)
    for row, first in [(0, 0), (2**41 + 3, 7), (5, 2**33 + 1)]:
        places = [naive.place_of(KEY, row, first + d) for d in range(count)]
        expected = [naive.class_draw(cells.tolist(), pairs, order, p, SALT) for p in places]
        items = np.full(count + 2, -9)
        where = (np.uint64(KEY), np.uint64(SALT), row, first)
        count_classes.draw_class_items(cells, spans, order, *where, items[1:-1])
        assert items.tolist() == [-9, *expected, -9]

        items, bits = np.full(count + 2, -9), np.full(count + 2, 3, dtype=np.uint32)
        count_classes.draw_class_entries(
            cells, spans, order, CLASS_BITS, *where, items[1:-1], bits[1:-1]
        )
        assert items.tolist() == [-9, *expected, -9]
        classes = np.searchsorted(borders, place_of_item[expected], side="right")
        assert bits.tolist() == [3, *(1000 + classes).tolist(), 3]


def test_no_draw_of_a_class_without_mass() -> None:
    items = np.empty(20_000, dtype=np.int64)
    count_classes.draw_class_items(
        _cells(9), frozen(_spans(SIZES)), NO_ORDER, np.uint64(KEY), np.uint64(SALT), 0, 0, items
    )
    drawn = np.unique(np.searchsorted(np.cumsum(SIZES), items, side="right"))
    assert drawn.tolist() == [0, 1, 2, 5, 6, 7, 8]
