"""Small requests in one call: codes checked, ids drawn, log-probabilities looked up.

A call of a kernel from Python costs some tenths of a microsecond for each array, and a small
request draws for a few microseconds only. So what never changes comes as one array of numbers and
addresses, ``facts``, and rows come by their address; the draws are those of ``draws.py``.

facts: int64, [users, items, then (address, length) of each array in the order of its kernel]. The
caller keeps these arrays alive, and knows that they are C-contiguous and of the dtype read here.

Shared arguments:
    users: the address of int64 [B].
    given: the address of int64 [B] row numbers, or 0 for first_row, first_row + 1, ...
    items: int64 [B, K], written. log_q: float32 [B, K], written, or of no rows if not asked for.

Returns:
    The number of cells left at -1, whose log_q is not written; ``REFUSED`` if a code or a row
    number is out of range, and then nothing is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.count_classes import SALT
from fastneg.kernels.draws import classes_rows, table_rows, uniform_rows
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import array_at, array_in, flat
from fastneg.kernels.pow import class_at, conditional
from fastneg.kernels.rng import mix64
from fastneg.kernels.scan import codes_within

REFUSED = -1
# int64 as Python's own numbers are: literals would compile the check once more each
_UNKNOWN: Any = np.int64(-1)
_FIRST_ROW: Any = np.int64(0)
_MOST_ROWS: Any = np.int64(2**63 - 1)
# the dtypes of the arrays in the facts, by kernel
_LISTS = (np.int64, np.int64, np.uint64, np.uint64, np.int8)
UNIFORM = (*_LISTS, np.float32)
TABLE = (*_LISTS, np.float64, np.uint64, np.float64)
CLASSES = (*TABLE, np.uint64, np.uint32, np.uint16, np.int64)


@helper
def _read_rows(
    users: int, num_users: int, given: int, first_row: int, owner: Any, numbers: Any
) -> bool:
    """Write users and row numbers [B]; False where a code or a number is out of range.

    Users are copied before they are checked: another thread may write to the caller's array.
    """
    codes = array_at(users, owner.shape[0], np.int64)
    for b in range(owner.shape[0]):
        owner[b] = codes[b]
    if not codes_within(owner, _UNKNOWN, num_users):
        return False
    if given == 0:
        for b in range(numbers.shape[0]):
            numbers[b] = first_row + b
        return True
    asked = array_at(given, numbers.shape[0], np.int64)
    if not codes_within(asked, _FIRST_ROW, _MOST_ROWS):
        return False
    for b in range(numbers.shape[0]):
        numbers[b] = asked[b]
    return True


@kernel
def lean_uniform(
    facts: Any, users: int, given: int, first_row: int, key: np.uint64, items: Any, log_q: Any
) -> int:
    """``draw_uniform``; facts: indptr, excluded, metas, words, attempts, float32 ln q by list."""
    rows = np.empty((2, items.shape[0]), np.int64)  # one allocation for both
    owner, numbers = rows[0], rows[1]
    if not _read_rows(users, facts[0], given, first_row, owner, numbers):
        return REFUSED
    uniform_rows(
        facts[1], array_in(facts, 2, np.int64), array_in(facts, 4, np.int64),
        array_in(facts, 6, np.uint64), array_in(facts, 8, np.uint64), array_in(facts, 10, np.int8),
        owner, key, numbers, 0, np.empty((0, 0), np.int8), 0, flat(items),
    )  # fmt: skip
    by_list = array_in(facts, 12, np.float32)
    for b in range(log_q.shape[0]):
        for d in range(log_q.shape[1]):
            log_q[b, d] = by_list[owner[b]]
    return 0


@kernel
def lean_table(
    facts: Any, users: int, given: int, first_row: int, key: np.uint64, items: Any, log_q: Any
) -> int:
    """``draw_table`` and ``table_log_q``.

    Facts: indptr, excluded, metas, words, attempts, log_allowed, cells, log_q (may be empty where
    it is not asked for).
    """
    rows = np.empty((2, items.shape[0]), np.int64)  # one allocation for both
    owner, numbers = rows[0], rows[1]
    if not _read_rows(users, facts[0], given, first_row, owner, numbers):
        return REFUSED
    left = table_rows(
        array_in(facts, 14, np.uint64), array_in(facts, 2, np.int64), array_in(facts, 4, np.int64),
        array_in(facts, 6, np.uint64), array_in(facts, 8, np.uint64), array_in(facts, 10, np.int8),
        owner, key, numbers, 0, np.empty((0, 0), np.int8), 0, flat(items),
    )  # fmt: skip
    if left == 0:
        by_list, by_item = array_in(facts, 12, np.float64), array_in(facts, 16, np.float64)
        for b in range(log_q.shape[0]):
            for d in range(log_q.shape[1]):
                log_q[b, d] = conditional(by_item[items[b, d]], by_list[owner[b]])
    return left


@kernel
def lean_classes(
    facts: Any, users: int, given: int, first_row: int, key: np.uint64, items: Any, log_q: Any
) -> int:
    """``draw_classes`` and ``class_log_q``.

    Facts: indptr, excluded, metas, words, attempts, log_allowed, cells, log_q by class, spans,
    order, class_of (may be empty), starts.
    """
    rows = np.empty((2, items.shape[0]), np.int64)  # one allocation for both
    owner, numbers = rows[0], rows[1]
    if not _read_rows(users, facts[0], given, first_row, owner, numbers):
        return REFUSED
    left = classes_rows(
        array_in(facts, 14, np.uint64), array_in(facts, 18, np.uint64),
        array_in(facts, 20, np.uint32), array_in(facts, 2, np.int64), array_in(facts, 4, np.int64),
        array_in(facts, 6, np.uint64), array_in(facts, 8, np.uint64), array_in(facts, 10, np.int8),
        owner, key, mix64(key ^ SALT), numbers, 0, np.empty((0, 0), np.int8), 0, flat(items),
    )  # fmt: skip
    if left == 0:
        by_list, by_class = array_in(facts, 12, np.float64), array_in(facts, 16, np.float64)
        class_of, starts = array_in(facts, 22, np.uint16), array_in(facts, 24, np.int64)
        for b in range(log_q.shape[0]):
            for d in range(log_q.shape[1]):
                c = class_at(class_of, starts, items[b, d])
                log_q[b, d] = conditional(by_class[c], by_list[owner[b]])
    return left
