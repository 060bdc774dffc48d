"""Where an id stands among distinct ids: a hash table with open addressing, built once.

An id is a stretch of bytes, a text's own or the eight of an integer: id i is
``data[offsets[i]:offsets[i + 1]]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import mix64

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)


@helper
def _hash_bytes(data: Bytes, start: int, stop: int) -> np.uint64:
    """FNV-1a, with its bits mixed: its own lowest ones depend on few."""
    value = _BASIS
    for place in range(start, stop):
        value = (value ^ np.uint64(data[place])) * _PRIME
    return mix64(value)


@kernel
def index_ids(offsets: Int64, data: Bytes, table: Int32) -> None:
    """Put the numbers of distinct ids into ``table``.

    Args:
        offsets: int64 [n + 1], ascending, within ``data``.
        data: uint8.
        table: int32 [2^k], more than n of them, all -1 on entry.
    """
    mask = np.uint64(table.size - 1)
    for i in range(offsets.size - 1):
        slot = _hash_bytes(data, offsets[i], offsets[i + 1]) & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = i


@kernel
def find_ids(
    offsets: Int64, data: Bytes, table: Int32, asked: Int64, asked_data: Bytes, codes: Int64
) -> None:
    """``codes[j]``: the number of the id that equals the one asked for, or -1.

    Args:
        offsets, data, table: of ``index_ids``.
        asked: int64 [m + 1], the offsets of the ids asked for, within ``asked_data``.
        asked_data: uint8.
        codes: int64 [m].
    """
    mask = np.uint64(table.size - 1)
    for j in range(codes.size):
        start, size = asked[j], asked[j + 1] - asked[j]
        slot = _hash_bytes(asked_data, start, start + size) & mask
        codes[j] = -1
        while table[slot] >= 0:
            own = offsets[table[slot]]
            if offsets[table[slot] + 1] - own == size:
                same = 0
                while same < size and data[own + same] == asked_data[start + same]:
                    same += 1
                if same == size:
                    codes[j] = table[slot]
                    break
            slot = (slot + np.uint64(1)) & mask
