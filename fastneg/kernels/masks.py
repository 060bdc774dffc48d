"""A B x C mask of known positives by walking inverted lists, not by testing cells.

One side of the mask (rows or columns) is walked: the sorted list of each of its codes is read, and
each member is looked up among the other side's codes. A bit for every code drops the members that
are not there without a branch; the others find their first position in an array by code. Cells that
stay False are never visited.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel, part
from fastneg.kernels.llvm import prefetch

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Codes = Int64 | Int32

_ONE = np.uint64(1)
_LOW = np.uint64(63)
_WORD = np.uint64(6)
_BLOCK = 512
_AHEAD = 8  # lists; their first members are asked for so early
_SOON, _LINE = 128, 64  # members; bytes of a cache line


@kernel
def mark_codes(codes: Int64, bits: UInt64, slots: Int32, following: Int32) -> None:
    """Set the bit of each code and ``slots[code]``, its last position; codes below 0: nothing.

    ``bits`` is zero and ``slots`` -1 on entry, one of each per code that there may be.
    ``following`` [codes] chains the positions of equal codes (-1 ends a chain).
    """
    for i in range(codes.size):
        code = codes[i]
        following[i] = -1
        if code >= 0:
            bits[code >> 6] |= _ONE << np.uint64(code & 63)
            following[i] = slots[code]
            slots[code] = i


@kernel
def unmark_codes(codes: Int64, bits: UInt64, slots: Int32) -> None:
    """Make ``bits`` and ``slots`` again what they were before ``mark_codes``."""
    for code in codes:
        if code >= 0:
            bits[code >> 6] = np.uint64(0)
            slots[code] = -1


@helper
def _keep_marked(members: Codes, start: int, stop: int, bits: UInt64, kept: Int64) -> int:
    """Write the members whose bit is set to ``kept``; how many. Unsigned, so without a branch."""
    count = np.uint64(0)
    for j in range(np.uint64(start), np.uint64(stop)):
        member = np.uint64(members[j])
        kept[count] = np.int64(member)
        count += (bits[member >> _WORD] >> (member & _LOW)) & _ONE
    return np.int64(count)  # type: ignore[return-value]


@helper
def _ask_early(indptr: Int64, members: Codes, codes: Int64, i: int, stop: int) -> None:
    """Ask for what the lists after the i-th need first."""
    later = codes[min(i + 2 * _AHEAD, stop - 1)]
    if later >= 0:
        prefetch(indptr, later)
    ahead = codes[min(i + _AHEAD, stop - 1)]
    if ahead >= 0:
        first = indptr[ahead]
        last = min(indptr[ahead + 1], first + _SOON)
        for place in range(first, last, _LINE // members.itemsize):
            prefetch(members, place)


@kernel
def list_lengths(indptr: Int64, codes: Int64) -> int:
    """The number of list members that a walk over ``codes`` reads."""
    total = 0
    for code in codes:
        if code >= 0:
            total += indptr[code + 1] - indptr[code]
    return total


@kernel
def guess_lengths(
    indptr: Int64, codes: Int64, other_indptr: Int64, other_codes: Int64, most: int
) -> tuple[int, int]:
    """``list_lengths`` of two sides, guessed from up to 2 ``most`` codes, evenly spaced."""
    totals = np.zeros(2, np.int64)
    for side in range(2):
        starts, own = (indptr, codes) if side == 0 else (other_indptr, other_codes)
        step = max(1, own.size // most)
        seen = 0
        for i in range(0, own.size, step):
            seen += 1
            if own[i] >= 0:
                totals[side] += starts[own[i] + 1] - starts[own[i]]
        totals[side] = totals[side] * own.size // max(1, seen)
    return totals[0], totals[1]


@kernel
def walk_lists(
    indptr: Int64,
    members: Int64,
    codes: Int64,
    start: int,
    stop: int,
    bits: UInt64,
    slots: Int32,
    following: Int32,
    mask: npt.NDArray[np.uint8],
    own_stride: int,
    other_stride: int,
) -> None:
    """Set ``mask[i * own_stride + j * other_stride]`` where list i holds the other side's code j.

    ``mask`` is flat and zero on entry; only positions ``start..stop - 1`` of ``codes`` are walked.
    """
    kept = np.empty(_BLOCK, np.int64)
    for i in range(start, stop):
        _ask_early(indptr, members, codes, i, stop)
        code = codes[i]
        if code < 0:
            continue
        own, last = i * own_stride, indptr[code + 1]
        for block in range(indptr[code], last, _BLOCK):
            count = _keep_marked(members, block, min(block + _BLOCK, last), bits, kept)
            for k in range(count):
                position = np.int64(slots[kept[k]])
                while position >= 0:
                    mask[own + position * other_stride] = 1
                    position = np.int64(following[position])


@kernel
def find_cells(
    indptr: Int64,
    members: Codes,
    codes: Int64,
    start: int,
    stop: int,
    bits: UInt64,
    slots: Int32,
    following: Int32,
    own: Int64,
    other: Int64,
) -> int:
    """The cells that ``walk_lists`` sets, one after the other.

    The k-th is at ``own[k]``, a position in ``codes``, and ``other[k]``, one on the other side;
    those beyond the length of ``own`` are counted and not written.

    Returns:
        How many there are.
    """
    kept = np.empty(_BLOCK, np.int64)
    found = 0
    for i in range(start, stop):
        _ask_early(indptr, members, codes, i, stop)
        code = codes[i]
        if code < 0:
            continue
        last = indptr[code + 1]
        for block in range(indptr[code], last, _BLOCK):
            count = _keep_marked(members, block, min(block + _BLOCK, last), bits, kept)
            for k in range(count):
                position = np.int64(slots[kept[k]])
                while position >= 0:
                    if found < own.size:
                        own[found] = i
                        other[found] = position
                    found += 1
                    position = np.int64(following[position])
    return found


@kernel
def count_cells(rows: Int64, starts: Int64) -> None:
    """Add the number of cells in row b to ``starts[b + 1]``; rows: [P]."""
    for row in rows:
        starts[row + 1] += 1


@kernel
def order_cells(rows: Int64, columns: Int64, num_columns: int, places: Int64, cells: Int64) -> None:
    """Write the flat places of cells [P] to ``cells[places[row]]``, which then moves on by one."""
    for k in range(rows.size):
        row = rows[k]
        cells[places[row]] = row * num_columns + columns[k]
        places[row] += 1


@helper
def _first_cells(
    kept: Int64, count: int, slots: Int32, following: Int32, base: int, cells: Int64, found: int
) -> int:
    """``base`` plus the last position of each kept code, to cells[found:]; without a branch.

    The positions of codes that have more of them come to the front of ``kept``.

    Returns:
        How many such codes there are.
    """
    more = 0
    for k in range(count):
        position = np.int64(slots[kept[k]])
        cells[found + k] = base + position
        kept[more] = position
        more += int(following[position] >= 0)
    return more


@part
def _cells_by_row(
    indptr: Int64, members: Codes, rows: Int64, num_columns: int, bits: UInt64, slots: Int32,
    following: Int32, cells: Int64, starts: Int64,
) -> int:  # fmt: skip
    """``cells_at_once`` where the lists are the rows', whose columns are marked."""
    kept = np.empty(_BLOCK, np.int64)
    found = 0
    starts[0] = 0
    for b in range(rows.size):
        _ask_early(indptr, members, rows, b, rows.size)
        code, base = rows[b], b * num_columns
        last = indptr[code + 1] if code >= 0 else 0
        for block in range(indptr[code] if code >= 0 else 0, last, _BLOCK):
            count = _keep_marked(members, block, min(block + _BLOCK, last), bits, kept)
            if found + count > cells.size:  # from here on cells are counted and not written
                for k in range(count):
                    position = np.int64(slots[kept[k]])
                    while position >= 0:
                        found += 1
                        position = np.int64(following[position])
                continue
            more = _first_cells(kept, count, slots, following, base, cells, found)
            found += count
            for k in range(more):
                position = np.int64(following[kept[k]])
                while position >= 0:
                    if found < cells.size:
                        cells[found] = base + position
                    found += 1
                    position = np.int64(following[position])
        starts[b + 1] = found
    return found


@kernel
def cells_at_once(
    indptr: Int64,
    members: Codes,
    walked: Int64,
    looked_up: Int64,
    columns: bool,
    bits: UInt64,
    slots: Int32,
    following: Int32,
    own: Int64,
    other: Int64,
    cells: Int64,
    starts: Int64,
) -> int:
    """The flat places of known positives among rows x columns, by row, in one call.

    ``walked`` are the rows and ``looked_up`` the columns, or with ``columns`` the other way round;
    the lists are those of ``walked``. Row b's cells are ``cells[starts[b]:starts[b + 1]]``.
    ``own``, ``other`` and ``cells``, of one length, are room: where it does not do, nothing but
    the number of cells is to be used. ``own`` and ``other`` are for walked columns; else empty.

    Returns:
        How many there are.
    """
    mark_codes(looked_up, bits, slots, following)
    if not columns:
        found = _cells_by_row(
            indptr, members, walked, looked_up.size, bits, slots, following, cells, starts
        )
        unmark_codes(looked_up, bits, slots)
        return found
    found = find_cells(indptr, members, walked, 0, walked.size, bits, slots, following, own, other)
    unmark_codes(looked_up, bits, slots)
    if found > cells.size:
        return found
    num_rows = looked_up.size
    starts[:] = 0
    count_cells(other[:found], starts)
    for b in range(num_rows):
        starts[b + 1] += starts[b]
    order_cells(other[:found], own[:found], walked.size, starts[:num_rows].copy(), cells)
    return found
