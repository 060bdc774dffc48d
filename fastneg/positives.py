"""The distinct positive pairs as compressed sparse rows, their transpose, and masks over them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg import threads
from fastneg.checks import AnyArray, Float32Array, IntArray, frozen
from fastneg.errors import FastnegError
from fastneg.kernels import csr as kernels
from fastneg.kernels import masks

_WALK = 32_768  # list members that are worth a thread of their own
_FIND = 1 << 18  # the same beside training, where torch's own threads still hold the cores


UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]


class Positives(NamedTuple):
    """Distinct pairs by user: user u has ``items[indptr[u]:indptr[u + 1]]``, ascending.

    ``weights`` [P] add up a pair's rows, ``times`` [P] keep its latest (None without times).
    """

    indptr: IntArray
    items: IntArray
    weights: Float32Array
    times: AnyArray | None


class _Sorted(NamedTuple):
    indptr: IntArray
    minors: IntArray
    rows: IntArray


def _sort_pairs(
    majors: IntArray, minors: IntArray, sizes: tuple[int, int], *, with_rows: bool
) -> _Sorted:
    """Rows by (major, minor, place): two stable counting sorts, the minor key first.

    The numbers of the rows are carried along only ``with_rows``; else ``rows`` is empty.
    """
    num_majors, num_minors = sizes
    starts = np.empty(num_minors + 1, np.int64)
    kernels.count_starts(minors, starts)
    sorted_minors = np.repeat(np.arange(num_minors), np.diff(starts))
    indptr = np.empty(num_majors + 1, np.int64)
    kernels.count_starts(majors, indptr)
    by_minor, by_major = np.empty_like(majors), np.empty_like(majors)
    if not with_rows:
        kernels.scatter_values(frozen(minors), frozen(majors), starts, by_minor)
        kernels.scatter_values(frozen(by_minor), frozen(sorted_minors), indptr.copy(), by_major)
        return _Sorted(indptr, by_major, np.empty(0, np.int64))
    rows, sorted_rows = np.empty_like(majors), np.empty_like(majors)
    kernels.scatter_rows(minors, majors, np.arange(majors.size), starts, by_minor, rows)
    kernels.scatter_rows(by_minor, sorted_minors, rows, indptr.copy(), by_major, sorted_rows)
    return _Sorted(indptr, by_major, sorted_rows)


def build_positives(
    users: IntArray,
    items: IntArray,
    weights: Float32Array | None,
    times: AnyArray | None,
    *,
    num_users: int,
    num_items: int,
) -> Positives:
    """The CSR of distinct pairs of rows that are all positive; codes are valid.

    Raises:
        FastnegError: the weights of a pair add up to more than float32 holds.
    """
    indptr = np.empty(num_users + 1, np.int64)
    if kernels.is_sorted_distinct(users, items):
        kernels.count_starts(users, indptr)
        own = np.ones(users.size, np.float32) if weights is None else weights
        return Positives(indptr, items, own, times)
    with_rows = weights is not None or times is not None
    order = _sort_pairs(users, items, (num_users, num_items), with_rows=with_rows)
    pairs, counts = np.empty(users.size, np.int64), np.empty(users.size, np.float32)
    group = np.empty(users.size if with_rows else 0, np.int64)
    count = kernels.merge_equal(order.indptr, order.minors, pairs, counts, indptr, group)
    distinct, sums = pairs[:count].copy(), counts[:count].copy()
    if weights is not None:
        wide = np.empty(count, np.float64)
        kernels.sum_groups(group, order.rows, weights, wide)
        with np.errstate(over="ignore"):
            sums = wide.astype(np.float32)
        if not np.isfinite(sums).all():
            raise FastnegError(
                "Interactions: the weights of a pair's rows add up to "
                f"{wide[~np.isfinite(sums)][0]}, more than float32 holds; give smaller weights"
            )
    latest: AnyArray | None = None
    if times is not None:
        latest = np.empty(count, times.dtype)
        kernels.latest_of_groups(group, order.rows, times, latest)
    return Positives(indptr, distinct, sums, latest)


def transpose(indptr: IntArray, members: IntArray, num_columns: int) -> tuple[IntArray, IntArray]:
    """(indptr [num_columns + 1], rows [P] ascending per column) of a CSR structure."""
    columns = np.empty(num_columns + 1, np.int64)
    kernels.count_starts(members, columns)
    rows = np.empty(members.size, np.int64)
    owners = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    kernels.scatter_values(frozen(members), frozen(owners), columns.copy(), rows)
    return columns, rows


class CodeMarks:
    """Where the codes of one side of a mask stand, found by code; kept from call to call.

    Holds 4.125 bytes for each of ``num_codes`` codes and caller at once. Several Python threads
    may use one.
    """

    def __init__(self, num_codes: int) -> None:
        self._num_codes = num_codes
        self._free: list[tuple[UInt64Array, Int32Array]] = []

    @contextlib.contextmanager
    def clean(self) -> Iterator[tuple[UInt64Array, Int32Array]]:
        """(bits, slots) without a mark, to be left so."""
        try:
            bits, slots = self._free.pop()
        except IndexError:
            bits = np.zeros(self._num_codes // 64 + 1, np.uint64)
            slots = np.full(self._num_codes, -1, np.int32)
        yield bits, slots  # lost where the caller fails, and made anew
        self._free.append((bits, slots))

    @contextlib.contextmanager
    def of(self, codes: IntArray) -> Iterator[tuple[UInt64Array, Int32Array, Int32Array]]:
        """(bits, slots, following) of ``masks.mark_codes`` while the context lasts."""
        following = np.empty(codes.size, np.int32)
        with self.clean() as (bits, slots):
            masks.mark_codes(codes, bits, slots, following)
            yield bits, slots, following
            masks.unmark_codes(codes, bits, slots)


def cells_at_once(
    lists: tuple[IntArray, Int32Array | IntArray],
    walked: IntArray,
    looked_up: IntArray,
    marks: CodeMarks,
    *,
    columns: bool = False,
) -> tuple[IntArray, IntArray]:
    """``find_positives`` on one thread, in one call of a kernel.

    Args:
        lists, walked, looked_up, marks, columns: as for ``mark_positives``.
    """
    following = np.empty(looked_up.size, np.int32)
    starts = np.empty((looked_up if columns else walked).size + 1, np.int64)
    room = 1024 + 8 * (walked.size + looked_up.size)  # untouched, it costs nothing
    while True:
        cells = np.empty(room, np.int64)
        own, other = (np.empty(room if columns else 0, np.int64) for _ in range(2))
        with marks.clean() as (bits, slots):
            found = masks.cells_at_once(
                *lists, walked, looked_up, columns,
                bits, slots, following, own, other, cells, starts,
            )  # fmt: skip
        if found <= room:
            return cells[:found], starts
        room = found


def find_positives(
    lists: tuple[IntArray, Int32Array | IntArray],
    walked: IntArray,
    looked_up: IntArray,
    marks: CodeMarks,
    *,
    columns: bool = False,
) -> tuple[IntArray, IntArray]:
    """The cells that ``mark_positives`` sets, without the mask.

    Args:
        lists, walked, looked_up, marks, columns: as for ``mark_positives``.

    Returns:
        cells, int64 [P]: flat places in the mask of B x C cells, by row; starts, int64 [B + 1]:
        row b's are ``cells[starts[b]:starts[b + 1]]``.
    """
    indptr, members = lists
    pieces: dict[int, tuple[IntArray, IntArray]] = {}

    total = masks.list_lengths(indptr, walked)

    def find(start: int, stop: int) -> None:
        room = 1024 + total * (stop - start) // walked.size  # untouched, it costs nothing
        while True:
            own, other = np.empty(room, np.int64), np.empty(room, np.int64)
            found = masks.find_cells(
                indptr, members, walked, start, stop, bits, slots, following, own, other
            )
            if found <= room:
                break
            room = found
        pieces[start] = own[:found], other[:found]

    rows_per_thread = max(1, int(_FIND * walked.size / max(1, total)))
    with marks.of(looked_up) as (bits, slots, following):
        threads.run_chunks(find, walked.size, smallest=rows_per_thread)
    # in the order of the lists, so that threads change nothing
    ordered = [pieces[start][::-1] if columns else pieces[start] for start in sorted(pieces)]
    shape = (looked_up.size, walked.size) if columns else (walked.size, looked_up.size)
    starts = np.zeros(shape[0] + 1, np.int64)
    for rows, _ in ordered:
        masks.count_cells(rows, starts)
    starts = np.cumsum(starts)
    cells, places = np.empty(starts[-1], np.int64), starts[:-1].copy()
    for rows, others in ordered:
        masks.order_cells(rows, others, shape[1], places, cells)
    return cells, starts


def mark_positives(
    lists: tuple[IntArray, IntArray],
    walked: IntArray,
    looked_up: IntArray,
    marks: CodeMarks,
    mask: npt.NDArray[np.uint8],
    *,
    columns: bool = False,
) -> None:
    """Set the cells of a mask where ``walked[a]``'s list holds ``looked_up[b]``.

    The cell is ``mask[a, b]``, or ``mask[b, a]`` with ``columns``.

    Args:
        lists: (indptr, members) of the walked side.
        walked: codes whose lists are read, -1 for none.
        looked_up: codes of the other side, -1 for none; a code may occur more than once.
        marks: for the codes of the other side.
        mask: C-contiguous, zero on entry.
        columns: ``walked`` are the mask's columns.
    """
    strides = (1, mask.shape[1]) if columns else (mask.shape[1], 1)
    flat = mask.reshape(-1)
    indptr, members = lists
    total = masks.list_lengths(indptr, walked)

    def walk(start: int, stop: int) -> None:
        masks.walk_lists(
            indptr, members, walked, start, stop, bits, slots, following, flat, *strides
        )

    rows_per_thread = max(1, int(_WALK * walked.size / max(1, total)))
    with marks.of(looked_up) as (bits, slots, following):
        threads.run_chunks(walk, walked.size, smallest=rows_per_thread)
