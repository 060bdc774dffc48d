"""The alias method (Walker 1977; Vose 1991) in integers, so that a table is exact.

Weights become integer masses that sum to n 2^32: every cell of the table holds 2^32 of them. A
cell is one 64-bit word, the threshold in the upper half and the alias in the lower, and one random
word gives both the cell and the coin, so that a draw touches one cache line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import row_key, word

BLOCK = 4096  # weights are summed in blocks of this many, whoever sums them
CELL = np.uint64(1 << 32)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@kernel
def block_sums(weights: Any, limit: float, sums: Any, small: Any, first_block: int) -> None:
    """Per block: the sum of the weights of ``limit`` or more, and how many lie in (0, limit).

    Args:
        weights: float64 [n].
        limit: weights below it are counted, not summed.
        sums: float64 [blocks of this call].
        small: int64 [blocks of this call].
        first_block: the block that ``sums[0]`` belongs to.
    """
    n = weights.shape[0]
    for b in range(sums.shape[0]):
        start = (first_block + b) * BLOCK
        total = 0.0
        count = 0
        for i in range(start, min(start + BLOCK, n)):
            if weights[i] >= limit:
                total += weights[i]
            elif weights[i] > 0.0:
                count += 1
        sums[b] = total
        small[b] = count


@kernel
def floor_masses(weights: Any, scale: float, masses: Any) -> np.uint64:
    """masses[i] = max(1, floor(weights[i] * scale)), 0 for a weight of 0; returns their sum."""
    total = _ZERO
    for i in range(weights.shape[0]):
        mass = _ZERO
        if weights[i] > 0.0:
            mass = max(np.uint64(weights[i] * scale), _ONE)
        masses[i] = mass
        total += mass
    return total


@kernel
def spread_rest(masses: Any, positive: int, rest: int) -> None:
    """Add ``rest`` units evenly over the ``positive`` entries above 0 (Bresenham's line)."""
    each = rest // positive
    left = rest - each * positive
    error = 0
    for i in range(masses.shape[0]):
        if masses[i] > _ZERO:
            add = each
            error += left
            if error >= positive:
                error -= positive
                add += 1
            masses[i] += np.uint64(add)


@helper
def _next_light(masses: Any, i: int) -> int:
    while i < masses.shape[0] and masses[i] >= CELL:
        i += 1
    return i


@helper
def _next_heavy(masses: Any, i: int) -> int:
    while i < masses.shape[0] and masses[i] < CELL:
        i += 1
    return i


@kernel
def fill_table(masses: Any, cells: Any) -> None:
    """Fill the cells by one sweep with two fingers, on light and on heavy entries.

    Args:
        masses: uint64 [n] that sum to exactly n 2^32.
        cells: uint64 [n]; threshold << 32 | alias. A coin below the threshold keeps the cell's own
            index. A cell that is all its own has itself as alias.

    No worklist is needed: a heavy entry gives to light ones until it holds one cell or less, then
    takes what it lacks from the next heavy one (Huebschle-Schneider and Sanders 2022, section 3).
    """
    n = masses.shape[0]
    light = _next_light(masses, 0)
    heavy = _next_heavy(masses, 0)
    held = masses[heavy]
    while heavy < n:
        if held > CELL:
            cells[light] = (masses[light] << _S32) | np.uint64(heavy)
            held -= CELL - masses[light]
            light = _next_light(masses, light + 1)
            continue
        following = _next_heavy(masses, heavy + 1)
        if held == CELL or following == n:
            cells[heavy] = (_LOW << _S32) | np.uint64(heavy)
            if following < n:
                held = masses[following]
        else:
            cells[heavy] = (held << _S32) | np.uint64(following)
            held = masses[following] - (CELL - held)
        heavy = following


@helper
def pick(cells: Any, num_cells: np.uint64, w: np.uint64) -> np.uint64:
    """One draw from a 64-bit word: t = floor(w n / 2^32) holds the cell above and the coin below.

    The probability of a run of t is off by 2^-64 at most.
    """
    t = (w >> _S32) * num_cells + (((w & _LOW) * num_cells) >> _S32)
    index = t >> _S32
    cell = cells[np.int64(index)]
    return index if (t & _LOW) < (cell >> _S32) else cell & _LOW


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
def draw_plain(cells: Any, key: np.uint64, row: int, first_draw: int, out: Any) -> None:
    """out[d] = a draw from the table by the word of (row, first_draw + d); out: int64 [k]."""
    num_cells = np.uint64(cells.shape[0])
    start = row_key(key, np.uint64(row))
    for d in range(out.shape[0]):
        out[d] = np.int64(pick(cells, num_cells, word(start, np.uint64(first_draw + d), _ZERO)))
