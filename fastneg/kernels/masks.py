"""A B x C mask of known positives by walking inverted lists, not by testing cells.

One side of the mask (rows or columns) is walked: the sorted list of each of its codes is read, and
each member is looked up among the other side's codes. A hashed bit set that fits the first cache
drops most of the members without a branch; a small hash table has the last word. Cells that stay
False are never visited.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel, prefetch

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SLOT_SHIFT = np.uint64(32)
_ONE = np.uint64(1)
_BLOCK = 512
_AHEAD = 8  # lists; their first members are asked for so early
_SOON, _LINE = 64, 8  # members, and those of a cache line


@helper
def _slot(code: int, last_slot: int) -> int:
    return int(np.int64((np.uint64(code) * _MULTIPLIER) >> _SLOT_SHIFT) & last_slot)


@helper
def _bit(code: int, shift: np.uint64) -> int:
    return int(np.int64((np.uint64(code) * _MULTIPLIER) >> shift))


@kernel
def fill_table(
    codes: Int64, bits: UInt64, shift: np.uint64, entries: Int64, following: Int64
) -> None:
    """Hash ``codes`` into a bit set and a table; codes below 0 are left out.

    ``bits`` has 2^(64 - shift) bits, zero on entry. ``entries`` is a flat (code, position) pair
    per place, a power of two of places, -1 on entry, more places than codes: linear probing.
    ``following`` [codes] chains the positions of equal codes (-1 ends a chain).
    """
    last_slot = entries.size // 2 - 1
    for i in range(codes.size):
        code = codes[i]
        following[i] = -1
        if code < 0:
            continue
        bit = _bit(code, shift)
        bits[bit >> 6] |= _ONE << np.uint64(bit & 63)
        slot = _slot(code, last_slot)
        while entries[2 * slot] >= 0 and entries[2 * slot] != code:
            slot = (slot + 1) & last_slot
        if entries[2 * slot] == code:
            following[i] = entries[2 * slot + 1]
        entries[2 * slot] = code
        entries[2 * slot + 1] = i


@kernel
def list_lengths(indptr: Int64, codes: Int64) -> int:
    """The number of list members that a walk over ``codes`` reads."""
    total = 0
    for code in codes:
        if code >= 0:
            total += indptr[code + 1] - indptr[code]
    return total


@kernel
def walk_lists(
    indptr: Int64,
    members: Int64,
    codes: Int64,
    start: int,
    stop: int,
    bits: UInt64,
    shift: np.uint64,
    entries: Int64,
    following: Int64,
    mask: npt.NDArray[np.uint8],
    own_stride: int,
    other_stride: int,
) -> None:
    """Set ``mask[i * own_stride + j * other_stride]`` where list i holds the other side's code j.

    ``mask`` is flat and zero on entry; only positions ``start..stop - 1`` of ``codes`` are walked.
    """
    last_slot = entries.size // 2 - 1
    kept = np.empty(_BLOCK, np.int64)
    for i in range(start, stop):
        code = codes[i]
        if code < 0:
            continue
        own = i * own_stride
        for block in range(indptr[code], indptr[code + 1], _BLOCK):
            count = 0
            for j in range(block, min(block + _BLOCK, indptr[code + 1])):
                member = members[j]
                bit = _bit(member, shift)
                kept[count] = member
                count += int((bits[bit >> 6] >> np.uint64(bit & 63)) & _ONE)
            for k in range(count):
                member = kept[k]
                slot = _slot(member, last_slot)
                while entries[2 * slot] >= 0 and entries[2 * slot] != member:
                    slot = (slot + 1) & last_slot
                if entries[2 * slot] == member:
                    position = entries[2 * slot + 1]
                    while position >= 0:
                        mask[own + position * other_stride] = 1
                        position = following[position]


@kernel
def find_cells(
    indptr: Int64,
    members: Int64,
    codes: Int64,
    start: int,
    stop: int,
    bits: UInt64,
    shift: np.uint64,
    entries: Int64,
    following: Int64,
    own: Int64,
    other: Int64,
) -> int:
    """The cells that ``walk_lists`` sets, one after the other.

    The k-th is at ``own[k]``, a position in ``codes``, and ``other[k]``, one on the other side;
    those beyond the length of ``own`` are counted and not written.

    Returns:
        How many there are.
    """
    last_slot = entries.size // 2 - 1
    kept = np.empty(_BLOCK, np.int64)
    found = 0
    for i in range(start, stop):
        later = codes[min(i + 2 * _AHEAD, stop - 1)]
        if later >= 0:
            prefetch(indptr, later)
        ahead = codes[min(i + _AHEAD, stop - 1)]
        if ahead >= 0:
            first = indptr[ahead]
            for line in range(first, min(indptr[ahead + 1], first + _SOON), _LINE):
                prefetch(members, line)
        code = codes[i]
        if code < 0:
            continue
        for block in range(indptr[code], indptr[code + 1], _BLOCK):
            count = 0
            for j in range(block, min(block + _BLOCK, indptr[code + 1])):
                member = members[j]
                bit = _bit(member, shift)
                kept[count] = member
                count += int((bits[bit >> 6] >> np.uint64(bit & 63)) & _ONE)
            for k in range(count):
                member = kept[k]
                slot = _slot(member, last_slot)
                while entries[2 * slot] >= 0 and entries[2 * slot] != member:
                    slot = (slot + 1) & last_slot
                if entries[2 * slot] == member:
                    position = entries[2 * slot + 1]
                    while position >= 0:
                        if found < own.size:
                            own[found] = i
                            other[found] = position
                        found += 1
                        position = following[position]
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
