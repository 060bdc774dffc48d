"""Small requests in one call: the ids and log-probabilities of the general kernels, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import draws, lean
from fastneg.kernels.count_classes import SALT
from fastneg.kernels.llvm import array_at, array_in, flat
from fastneg.kernels.pow import class_log_q, table_log_q
from fastneg.samplers.count_classes import CountClassTable
from fastneg.samplers.lean import LeanCall, lean_call
from tests.kernels import test_draws as world

KEY = np.uint64(world.KEY)
NUM_USERS = len(world.LISTS)
LISTS = (world.indptr, world.excluded)
# lists that rejection serves to the end: they leave the heaviest item
EASY, EASY_CLASSES = (frozen(np.array([-1, 0, o, -1, o] * 26)) for o in (3, 1))
ROWS = frozen(np.arange(len(EASY)) ** 3)
LOG_ALLOWED = frozen(np.append(np.linspace(-1.0, -0.1, NUM_USERS), 0.0))
LOG_Q = frozen(-np.arange(1.0, world.N + 1) / 7)
SPANS = frozen(np.array([(f << 32) | c for f, c in world.SPANS], dtype=np.uint64))
STARTS = frozen(np.array([f for f, _ in world.SPANS]))
NO_LOG_Q = np.zeros((0, 0), np.float32)


@numba.njit
def _read(address: int, facts: Any) -> Any:
    return array_at(address, 3, np.uint32).copy(), array_in(facts, 1, np.int8).copy()


@numba.njit
def _count_up(table: Any) -> None:
    cells = flat(table)
    for i in range(cells.shape[0]):
        cells[i] = i


def test_arrays_at_addresses() -> None:
    numbers, small = np.array([5, 2**32 - 1, 7], np.uint32), np.array([-1, 4], np.int8)
    found = _read(numbers.ctypes.data, np.array([0, small.ctypes.data, 2]))
    assert [array.tolist() for array in found] == [[5, 2**32 - 1, 7], [-1, 4]]
    assert [array.dtype for array in found] == [np.uint32, np.int8]
    table = np.zeros((3, 4), np.float32)
    _count_up(table)
    np.testing.assert_array_equal(table, np.arange(12).reshape(3, 4))
    _count_up(np.zeros((0, 4), np.float32))


class Both(NamedTuple):
    """One kernel of small requests; its general twins: (owner, rows, items), (owner, items)."""

    call: LeanCall
    draw: Callable[[Any, Any, Any], Any]
    log_q: Callable[[Any, Any], Any]


def _uniform(filters: Any) -> Both:
    rounded = frozen(LOG_ALLOWED.astype(np.float32))
    arrays = (*LISTS, *filters, world.attempts)

    def draw(owner: Any, rows: Any, items: Any) -> None:
        draws.draw_uniform(
            world.N, *arrays, owner, KEY, rows, 0, world.EVERYWHERE, 0, items.reshape(-1)
        )

    return Both(
        lean_call(lean.lean_uniform, NUM_USERS, world.N, (*arrays, rounded), lean.UNIFORM),
        draw,
        lambda owner, items: np.repeat(rounded[owner][:, None], items.shape[1], axis=1),
    )


def _table(filters: Any) -> Both:
    arrays = (*LISTS, *filters, world.attempts)
    held = (*arrays, LOG_ALLOWED, world.cells, LOG_Q)

    def draw(owner: Any, rows: Any, items: Any) -> Any:
        where = (owner, KEY, rows, 0, world.EVERYWHERE, 0, items.reshape(-1))
        return draws.draw_table(world.cells, *arrays, *where)

    def log_q(owner: Any, items: Any) -> Any:
        out = np.empty(items.shape, np.float32)
        table_log_q(LOG_Q, items, owner, LOG_ALLOWED, out)
        return out

    return Both(lean_call(lean.lean_table, NUM_USERS, world.N, held, lean.TABLE), draw, log_q)


def _classes(filters: Any, order: list[int]) -> Both:
    arrays, cells = (*LISTS, *filters, world.attempts), world._class_cells()
    places = frozen(np.array(order, dtype=np.uint32))
    by_place = np.repeat(np.arange(len(world.CLASS_SIZES)), world.CLASS_SIZES)
    class_of = np.zeros(len(order), np.uint16)
    class_of[order] = by_place[: len(order)]
    class_of, per_class = frozen(class_of), LOG_Q[: len(SPANS)]
    held = (*arrays, LOG_ALLOWED, cells, per_class, SPANS, places, class_of, STARTS)

    def draw(owner: Any, rows: Any, items: Any) -> Any:
        salt = CountClassTable.salt_of(int(KEY))
        where = (owner, KEY, salt, rows, 0, world.EVERYWHERE, 0, items.reshape(-1))
        return draws.draw_classes(cells, SPANS, places, *arrays, *where)

    def log_q(owner: Any, items: Any) -> Any:
        out = np.empty(items.shape, np.float32)
        class_log_q(per_class, class_of, STARTS, items, owner, LOG_ALLOWED, out)
        return out

    return Both(lean_call(lean.lean_classes, NUM_USERS, world.N, held, lean.CLASSES), draw, log_q)


MAKE: dict[str, Callable[[Any], Both]] = {
    "uniform": _uniform,
    "table": _table,
    "classes in order": lambda filters: _classes(filters, []),
    "classes": lambda filters: _classes(filters, world.ORDER),
}


def _short(
    both: Both, owner: Any, items: Any, log_q: Any, *, rows: Any = None, first: int = 0
) -> int:
    given = 0 if rows is None else rows.ctypes.data
    call = both.call
    return call.kernel(call.facts, owner.ctypes.data, given, first, KEY, items, log_q)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", ["none", "built", "crowded"])
@pytest.mark.parametrize("width", [1, 4, 31, 40])
def test_the_same_ids_and_log_q(name: str, kind: str, width: int) -> None:
    both, owner = MAKE[name](world._filters(kind)), EASY_CLASSES if name == "classes" else EASY
    expected = np.empty((len(owner), width), np.int64)
    for rows, numbers, first in ((ROWS, ROWS, 0), (None, frozen(np.arange(len(owner)) + 77), 77)):
        assert not both.draw(owner, numbers, expected)
        items, log_q = np.full_like(expected, -9), np.full(expected.shape, 9, np.float32)
        assert _short(both, owner, items, log_q, rows=rows, first=first) == 0
        np.testing.assert_array_equal(items, expected)
        asked = both.log_q(owner, frozen(expected))
        np.testing.assert_array_equal(log_q.view(np.uint32), asked.view(np.uint32))
        again = np.full_like(expected, -9)
        assert _short(both, owner, again, NO_LOG_Q, rows=rows, first=first) == 0
        np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("name", ["table", "classes"])
def test_cells_that_are_left_are_counted(name: str) -> None:
    both = MAKE[name](world._filters("built"))
    expected = np.empty((len(world.owner), 5), np.int64)
    left = both.draw(world.owner, world.rows, expected)
    items, log_q = np.empty_like(expected), np.full(expected.shape, 9, np.float32)
    assert _short(both, world.owner, items, log_q, rows=world.rows) == left > 0
    np.testing.assert_array_equal(items, expected)
    assert (log_q == 9).all()


@pytest.mark.parametrize("name", MAKE)
def test_what_is_out_of_range_is_refused_and_nothing_written(name: str) -> None:
    both = MAKE[name](world._filters("built"))
    items, log_q = np.full((len(EASY), 3), -9), np.full((len(EASY), 3), 9, np.float32)
    for place in (0, 70, len(EASY) - 1):
        for bad in (-2, NUM_USERS, 2**63 - 1, -(2**63)):
            codes = EASY.copy()
            codes[place] = bad
            assert _short(both, codes, items, log_q) == lean.REFUSED
        for bad in (-1, 2**63 - 1, -(2**63)):
            rows = ROWS.copy()
            rows[place] = bad
            assert _short(both, EASY, items, log_q, rows=rows) == lean.REFUSED
    assert (items == -9).all()
    assert (log_q == 9).all()


def test_salts_are_of_the_key() -> None:
    assert CountClassTable.salt_of(5) != CountClassTable.salt_of(6)
    assert int(SALT) == 0x6A09E667F3BCC909


def test_facts_hold_arrays_of_the_dtypes_that_are_read() -> None:
    given = [np.arange(8, dtype=np.int32)[::2], np.zeros(3, np.uint64)]
    call = lean_call(lean.lean_uniform, 4, 9, given, [np.int64, np.uint64])
    assert [array.dtype for array in call.held] == [np.int64, np.uint64]
    assert call.held[0].tolist() == [0, 2, 4, 6]
    assert call.facts.tolist() == [
        4, 9, call.held[0].ctypes.data, 4, call.held[1].ctypes.data, 3,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="zip"):
        lean_call(lean.lean_uniform, 4, 9, given, [np.int64])
