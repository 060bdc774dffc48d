"""Physical floors: what a draw cannot do without, written as carefully as a kernel.

``random_words``: the generator alone. ``gather_words``: the generator and one random read of an
8-byte table, which is what an alias draw costs when it is nothing but its cache line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import kernel
from fastneg.kernels.rng import mix64, row_key, word

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@kernel
def random_words(key: np.uint64, first: int, out: Any) -> None:
    """out[d] = a 64-bit word; out: uint64 [k]."""
    start = row_key(key, np.uint64(0))
    for d in range(out.shape[0]):
        out[d] = word(start, np.uint64(first + d), np.uint64(0))


@kernel
def gather_words(table: Any, key: np.uint64, first: int, out: Any) -> None:
    """out[d] = the table's word at a random place; table: uint64 [n], out: uint64 [k]."""
    size = np.uint64(table.shape[0])
    start = mix64(key)
    for d in range(out.shape[0]):
        w = word(start, np.uint64(first + d), np.uint64(0))
        place = ((w >> _S32) * size + (((w & _LOW) * size) >> _S32)) >> _S32
        out[d] = table[np.int64(place)]
