"""The alias method (Walker 1977; Vose 1991) in integers, so that a table is exact.

Weights become integer masses that sum to n 2^32: every cell of the table holds 2^32 of them. A
cell is one 64-bit word, the threshold in the upper half and the alias in the lower, and one random
word gives both the cell and the coin, so that a draw touches one cache line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import wide_vectors
from fastneg.kernels.rng import GOLDEN, mix64, row_key

CELL = np.uint64(1 << 32)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@helper
def scale_word(num_cells: np.uint64, w: np.uint64) -> Any:
    """T = floor(w n / 2^32): the cell in its upper half, the coin in its lower; n below 2^32.

    The probability of a run of t is off by 2^-64 at most.
    """
    n = num_cells & _LOW  # says to LLVM that 32-bit multiplications do
    return (w >> _S32) * n + (((w & _LOW) * n) >> _S32)


@helper
def choose(t: np.uint64, cell: np.uint64) -> Any:
    """The cell's own index where the coin lies below its threshold, else its alias."""
    return t >> _S32 if (t & _LOW) < (cell >> _S32) else cell & _LOW


@helper
def pick(cells: Any, num_cells: np.uint64, w: np.uint64) -> Any:
    """One draw from a 64-bit word."""
    t = scale_word(num_cells, w)
    return choose(t, cells[np.int64(t >> _S32)])


@kernel
def table_masses(cells: Any, masses: Any) -> None:
    """The masses that a table really gives: masses (zeroed) [n] receives every cell's two parts."""
    for i in range(cells.shape[0]):
        threshold = cells[i] >> _S32
        alias = np.int64(cells[i] & _LOW)
        if alias == i:
            masses[i] += CELL
        else:
            masses[i] += threshold
            masses[alias] += CELL - threshold


@kernel
def fill_entries(cells: Any, log_q: Any, first: int, entries: Any) -> None:
    """Entries of 16 bytes: a cell, and beside it the log-probabilities of both that it can give.

    Args:
        cells: uint64 [n]; log_q: the bits of float32 as uint32 [n].
        first: the cell of entries[0].
        entries: uint64 [2 m]: a cell, then own log_q << 32 | the alias's.
    """
    for i in range(entries.shape[0] >> 1):
        cell = cells[first + i]
        own = np.uint64(log_q[first + i])
        entries[2 * i] = cell
        entries[2 * i + 1] = (own << _S32) | np.uint64(log_q[np.int64(cell & _LOW)])


@kernel
def draw_plain(cells: Any, key: np.uint64, row: int, first_draw: int, out: Any) -> None:
    """out[d] = a draw from the table by the word of (row, first_draw + d); out: int64 [k]."""
    wide_vectors()
    num_cells = np.uint64(cells.shape[0])
    place = row_key(key, np.uint64(row)) + np.uint64(first_draw) * GOLDEN
    for d in range(out.shape[0]):
        place += GOLDEN  # the words of ``word``, by addition
        out[d] = np.int64(pick(cells, num_cells, mix64(place)))


@kernel
def draw_entries(
    entries: Any, key: np.uint64, row: int, first_draw: int, out: Any, log_q: Any
) -> None:
    """As ``draw_plain``, with log-probabilities; log_q: the bits of float32 as uint32 [k]."""
    wide_vectors()
    num_cells = np.uint64(entries.shape[0] >> 1)
    place = row_key(key, np.uint64(row)) + np.uint64(first_draw) * GOLDEN
    for d in range(out.shape[0]):
        place += GOLDEN
        t = scale_word(num_cells, mix64(place))
        index = np.int64(t >> _S32) * 2
        cell, both = entries[index], entries[index + 1]
        own = (t & _LOW) < (cell >> _S32)
        out[d] = np.int64(t >> _S32 if own else cell & _LOW)
        log_q[d] = np.uint32((both >> (_S32 if own else _ZERO)) & _LOW)


@kernel
def all_aliases_below(cells: Any, limit: int) -> bool:
    """Whether every alias is an index below ``limit``: what was read from a file is looked at."""
    largest = _ZERO
    for i in range(cells.shape[0]):
        largest = max(largest, cells[i] & _LOW)
    return bool(largest < np.uint64(limit))
