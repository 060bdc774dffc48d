"""A B x C mask of known positives by walking inverted lists, not by testing cells.

One side of the mask (rows or columns) is walked: the sorted list of each of its codes is read, and
each member is looked up in a small hash table of the other side's codes. Cells that stay False are
never visited.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_32 = np.uint64(32)


@helper
def _slot(code: int, last_slot: int) -> int:
    return int(np.int64((np.uint64(code) * _MULTIPLIER) >> _32) & last_slot)


@kernel
def fill_table(codes: Int64, keys: Int64, heads: Int32, following: Int32) -> None:
    """Hash ``codes``: linear probing over ``keys`` (-1: free; a power of two of places).

    ``heads`` [places] is the first position of a code, ``following`` [codes] chains the positions
    of equal codes (-1 ends a chain). Codes below 0 are left out.
    """
    last_slot = keys.size - 1
    for i in range(codes.size):
        code = codes[i]
        following[i] = -1
        if code < 0:
            continue
        slot = _slot(code, last_slot)
        while keys[slot] >= 0 and keys[slot] != code:
            slot = (slot + 1) & last_slot
        following[i] = heads[slot] if keys[slot] == code else -1
        keys[slot] = code
        heads[slot] = i


@kernel
def list_lengths(indptr: Int64, codes: Int64) -> int:
    """The number of list members that a walk over ``codes`` reads."""
    total = 0
    for code in codes:
        if code >= 0:
            total += indptr[code + 1] - indptr[code]
    return total


@kernel
def walk_lists(indptr: Int64, members: Int64, codes: Int64, start: int, stop: int,
               keys: Int64, heads: Int32, following: Int32,
               mask: npt.NDArray[np.uint8], own_stride: int, other_stride: int) -> None:
    """Set ``mask[i * own_stride + j * other_stride]`` where list i holds the other side's code j.

    ``mask`` is flat and zero on entry; only positions ``start..stop - 1`` of ``codes`` are walked.
    """
    last_slot = keys.size - 1
    for i in range(start, stop):
        code = codes[i]
        if code < 0:
            continue
        own = i * own_stride
        for j in range(indptr[code], indptr[code + 1]):
            member = members[j]
            slot = _slot(member, last_slot)
            while keys[slot] >= 0 and keys[slot] != member:
                slot = (slot + 1) & last_slot
            if keys[slot] == member:
                position = heads[slot]
                while position >= 0:
                    mask[own + position * other_stride] = 1
                    position = following[position]
