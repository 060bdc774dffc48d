"""The alias method (Walker 1977; Vose 1991) in integers, so that a table is exact.

Weights become integer masses that sum to n 2^32: every cell of the table holds 2^32 of them. A
cell is one 64-bit word, the threshold in the upper half and the alias in the lower, and one random
word gives both the cell and the coin, so that a draw touches one cache line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel, wide_vectors
from fastneg.kernels.pow import bits_of, double_of
from fastneg.kernels.rng import GOLDEN, mix64, row_key

BLOCK = 4096  # weights are summed in blocks of this many, whoever sums them
CELL = np.uint64(1 << 32)
_BUFFER = 512  # entries of a kind that are looked up ahead
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@kernel
def block_sums(
    weights: Any, factor: float, limit: float, sums: Any, small: Any, first_block: int
) -> None:
    """Per block: the sum of the weights of ``limit`` or more, and how many lie in (0, limit).

    Args:
        weights: float64 [n], each multiplied by ``factor`` (a power of 2) first.
        limit: weights below it are counted, not summed.
        sums: float64 [blocks of this call].
        small: int64 [blocks of this call].
        first_block: the block that ``sums[0]`` belongs to.

    A block is summed in eight lanes, then the lanes in order: fast, and the same bits everywhere.
    """
    n = weights.shape[0]
    lanes = np.empty(8)
    for b in range(sums.shape[0]):
        start = (first_block + b) * BLOCK
        stop = min(start + BLOCK, n)
        count = 0
        lanes[:] = 0.0
        whole = start + (stop - start) // 8 * 8
        for i in range(start, whole, 8):
            for j in range(8):
                w = weights[i + j] * factor
                large = w >= limit
                lanes[j] += w if large else 0.0
                count += (not large) & (weights[i + j] > 0.0)
        for i in range(whole, stop):
            w = weights[i] * factor
            if w >= limit:
                lanes[i - whole] += w
            elif weights[i] > 0.0:
                count += 1
        total = 0.0
        for j in range(8):
            total += lanes[j]
        sums[b] = total
        small[b] = count


@kernel
def floor_masses(
    weights: Any, factor: float, scale: float, first_block: int, masses: Any, sums: Any, counts: Any
) -> None:
    """masses[i] = max(1, floor(weights[i] factor scale)), 0 for a weight of 0.

    Args:
        weights: float64 [n]; masses: uint64 [n], written in the blocks of this call.
        first_block: the block that ``sums[0]`` belongs to.
        sums: uint64 [blocks of this call], the sum of each block's masses.
        counts: int64 [blocks of this call], how many of them are above 0.
    """
    n = weights.shape[0]
    for b in range(sums.shape[0]):
        total = _ZERO
        positive = 0
        for i in range((first_block + b) * BLOCK, min((first_block + b + 1) * BLOCK, n)):
            w = weights[i]
            mass = np.uint64(w * factor * scale)
            mass = max(mass, _ONE) if w > 0.0 else _ZERO
            masses[i] = mass
            total += mass
            positive += w > 0.0
        sums[b] = total
        counts[b] = positive


@kernel
def spread_rest(
    weights: Any,
    factor: float,
    scale: float,
    each: int,
    left: int,
    positive: int,
    first_block: int,
    errors: Any,
    masses: Any,
    surplus: Any,
    deficit: Any,
    relative: Any,
    total: Any,
) -> None:
    """Add ``each`` unit to every positive entry, and ``left`` more evenly (Bresenham's line).

    Args:
        weights, factor, scale: as in ``floor_masses``, for the error.
        each, left: units; 0 <= left < positive.
        positive: positive entries of the whole table.
        first_block: the block that ``errors[0]`` belongs to.
        errors: int64 [blocks of this call]: (positive entries before) left modulo ``positive``.
        masses: uint64 [n], changed in place in these blocks.
        surplus, deficit: uint64 [blocks of this call], written: what lies above and below a cell.
        relative, total: float64 [blocks of this call], written: the largest relative error of a
            mass, and the sum of absolute errors.
    """
    n = weights.shape[0]
    lanes = np.empty(8)
    for b in range(errors.shape[0]):
        start = (first_block + b) * BLOCK
        stop = min(start + BLOCK, n)
        error = errors[b]
        if each > 0 or left > 0:
            for i in range(start, stop):
                some = masses[i] > _ZERO
                error += left if some else 0
                over = error >= positive
                error -= positive if over else 0
                masses[i] += np.uint64(each + over) if some else _ZERO
        above = below = _ZERO
        for i in range(start, stop):
            above += masses[i] - min(masses[i], CELL)
            below += CELL - min(masses[i], CELL)
        surplus[b] = above
        deficit[b] = below
        worst = _ZERO  # the bits of doubles of 0 and more are ordered as they are
        lanes[:] = 0.0
        for i in range(start, start + (stop - start) // 8 * 8, 8):
            for j in range(8):
                asked = weights[i + j] * factor * scale
                off = abs(float(masses[i + j]) - asked)
                lanes[j] += off
                worst = max(worst, bits_of(off / max(asked, 1e-300)))
        for i in range(start + (stop - start) // 8 * 8, stop):
            asked = weights[i] * factor * scale
            off = abs(float(masses[i]) - asked)
            lanes[0] += off
            worst = max(worst, bits_of(off / max(asked, 1e-300)))
        relative[b] = double_of(worst)
        total[b] = lanes.sum()


@helper
def _next_light(masses: Any, i: int, cell: np.uint64) -> int:
    while i < masses.shape[0] and masses[i] >= cell:
        i += 1
    return i


@helper
def _next_heavy(masses: Any, i: int, cell: np.uint64) -> int:
    while i < masses.shape[0] and masses[i] < cell:
        i += 1
    return i


@kernel
def find_heavy(masses: Any, start: int, before: np.uint64, given: np.uint64) -> Any:
    """The heavy entry that gives next once ``given`` units have been given: (index, what it holds).

    Args:
        start: an index at or before it.
        before: the surplus of the entries before ``start``, at most ``given``.
    """
    surplus = before
    i = start
    while i < masses.shape[0]:
        if masses[i] > CELL:
            surplus += masses[i] - CELL
            if surplus > given:
                return i, CELL + (surplus - given)
        i += 1
    return i, CELL


@helper
def _collect(
    masses: Any, start: int, stop: int, cell: np.uint64, light: bool, indices: Any, sizes: Any
) -> Any:
    """The next light (or heavy) entries from ``start`` on: (where to go on, how many)."""
    count = 0
    i = start
    while i < stop and count < _BUFFER:
        mass = masses[i]
        indices[count] = i
        sizes[count] = mass
        count += (mass < cell) == light
        i += 1
    return i, count


@kernel
def fill_part(
    masses: Any, light: int, stop: int, heavy: int, held: np.uint64, alias_bits: int, cells: Any
) -> None:
    """Fill the cells by a sweep with two fingers, on light and on heavy entries.

    Args:
        masses: uint64 [n] that sum to exactly n cells.
        light, stop: the light entries of ``light..stop-1`` are filled by this call; the last call
            (stop = n) finishes all heavy ones.
        heavy, held: the heavy entry that gives first, and what it still holds (``find_heavy``);
            the first call begins with the first entry of a cell or more.
        alias_bits: 32 here: a cell holds 2^(64 - alias_bits) units.
        cells: uint64 [n]; threshold << alias_bits | alias. A coin below the threshold keeps the
            cell's own index. A cell that is all its own has itself as alias.

    No worklist is needed: a heavy entry gives to light ones until it holds one cell or less, then
    takes what it lacks from the next heavy one (Huebschle-Schneider and Sanders 2022, section 3).
    Which heavy entry serves a light one depends on sums only, so calls side by side fill the very
    table that one call fills. Which of the two a step is cannot be foreseen by a processor, so
    steps choose without a branch, from short lists of what comes next.
    """
    n = masses.shape[0]
    shift = np.uint64(alias_bits)
    cell = _ONE << (np.uint64(64) - shift)
    full = (cell - _ONE) << shift
    lights, light_masses = np.empty(_BUFFER + 1, np.int64), np.empty(_BUFFER + 1, np.uint64)
    heavies, heavy_masses = np.empty(_BUFFER + 1, np.int64), np.empty(_BUFFER + 1, np.uint64)
    next_heavy = heavy + 1
    num_lights = num_heavies = 0
    i: Any = 0
    j: Any = 0
    while heavy < n:
        if i == num_lights:
            light, num_lights = _collect(masses, light, stop, cell, True, lights, light_masses)
            i = 0
        if j == num_heavies:
            next_heavy, num_heavies = _collect(
                masses, next_heavy, n, cell, False, heavies, heavy_masses
            )
            j = 0
        if i == num_lights or j == num_heavies:
            break
        while i < num_lights and j < num_heavies:
            gives = np.int64(held > cell)
            mask, mask_64 = -gives, np.uint64(-gives)
            # chosen by masks: a conditional would be compiled to a branch
            own = heavy ^ ((heavy ^ lights[i]) & mask)
            threshold = held ^ ((held ^ light_masses[i]) & mask_64)
            alias = heavies[j] ^ ((heavies[j] ^ heavy) & mask)
            value = (threshold << shift) | np.uint64(alias)
            cells[own] = full | np.uint64(heavy) if held == cell else value
            held += (heavy_masses[j] ^ ((heavy_masses[j] ^ light_masses[i]) & mask_64)) - cell
            heavy = alias
            i += gives
            j += 1 - gives
    # one of the lists has ended: what is left is of one kind
    if i < num_lights:
        light = lights[i]
    light = _next_light(masses, light, cell)
    while heavy < n:
        if held > cell:
            if light >= stop:
                return
            cells[light] = (masses[light] << shift) | np.uint64(heavy)
            held -= cell - masses[light]
            light = _next_light(masses, light + 1, cell)
            continue
        following = _next_heavy(masses, heavy + 1, cell)
        if held == cell or following == n:
            cells[heavy] = full | np.uint64(heavy)
            if following < n:
                held = masses[following]
        else:
            cells[heavy] = (held << shift) | np.uint64(following)
            held = masses[following] - (cell - held)
        heavy = following


@kernel
def fill_table(masses: Any, cells: Any) -> None:
    """Fill a whole table; uint64 [n] each, the masses sum to exactly n 2^32."""
    heavy = _next_heavy(masses, 0, CELL)
    fill_part(masses, 0, masses.shape[0], heavy, masses[heavy], 32, cells)


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
