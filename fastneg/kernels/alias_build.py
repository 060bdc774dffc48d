"""Making an alias table: whole masses from weights, and the sweep that fills the cells.

Sums are taken in blocks, and the sweep can be cut at any block, so that the same table comes out
however the work is shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.alias import CELL
from fastneg.kernels.jit import HAS_COMPRESS, helper, kernel
from fastneg.kernels.llvm import compress, wide_vectors
from fastneg.kernels.pow import bits_of, double_of

BLOCK = 4096  # weights are summed in blocks of this many, whoever sums them
LANES = 64  # entries of a block that are worked on side by side
_SUMS = 8  # partial sums of a block, added in order
_AHEAD = 512  # entries of a kind that are looked up at once
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@kernel
def survey_blocks(
    weights: Any, first_block: int, lanes: Any, sums: Any, least: Any, largest: Any
) -> None:
    """Per block: the sum, and the bits of the smallest positive weight (less 1) and the largest.

    Args:
        weights: float64 [n].
        first_block: the block that ``sums[0]`` belongs to.
        lanes: float64 [8], scratch.
        sums: float64 [blocks of this call], each summed in eight lanes, then the lanes in order:
            fast, and the same bits everywhere.
        least, largest: uint64 [blocks of this call]. The bits of doubles of 0 and more are ordered
            as they are, and those of all others come after; one less puts 0 behind them.
    """
    wide_vectors()
    n = weights.shape[0]
    for b in range(sums.shape[0]):
        start = (first_block + b) * BLOCK
        stop = min(start + BLOCK, n)
        low, high = ~_ZERO, _ZERO
        for i in range(start, stop):
            bits = bits_of(weights[i] + 0.0)  # -0.0 is 0.0
            low, high = min(low, bits - _ONE), max(high, bits)
        least[b], largest[b] = low, high
        for j in range(_SUMS):
            lanes[j] = 0.0
        whole = start + (stop - start) // _SUMS * _SUMS
        for i in range(start, whole, _SUMS):
            for j in range(_SUMS):
                lanes[j] += weights[i + j]
        for i in range(whole, stop):
            lanes[i - whole] += weights[i]
        total = 0.0
        for j in range(_SUMS):
            total += lanes[j]
        sums[b] = total


@kernel
def block_sums(
    weights: Any, factor: float, limit: float, sums: Any, small: Any, first_block: int
) -> None:
    """Per block: the sum of the weights of ``limit`` or more, and how many lie in (0, limit).

    Args:
        weights: float64 [n], each multiplied by ``factor`` (a power of 2) first.
        limit: weights below it are counted, not summed.
        sums: float64 [blocks of this call], in lanes as in ``survey_blocks``.
        small: int64 [blocks of this call].
        first_block: the block that ``sums[0]`` belongs to.
    """
    n = weights.shape[0]
    lanes = np.empty(_SUMS)
    for b in range(sums.shape[0]):
        start = (first_block + b) * BLOCK
        stop = min(start + BLOCK, n)
        count = 0
        lanes[:] = 0.0
        for i in range(start, stop):
            w = weights[i] * factor
            if w >= limit:
                lanes[(i - start) % _SUMS] += w
            elif weights[i] > 0.0:
                count += 1
        total = 0.0
        for j in range(_SUMS):
            total += lanes[j]
        sums[b] = total
        small[b] = count


@helper
def _floor_mass(weight: float, factor: float, scale: float) -> np.uint64:
    """max(1, floor(weight factor scale)), 0 for a weight of 0."""
    return max(np.uint64(weight * factor * scale), np.uint64(weight > 0.0))


@kernel
def floor_sums(
    weights: Any, factor: float, scale: float, first_block: int, sums: Any, counts: Any
) -> None:
    """Per block: the sum of the masses max(1, floor(weight factor scale)), and how many there are.

    Args:
        weights: float64 [n]; a weight of 0 has no mass.
        first_block: the block that ``sums[0]`` belongs to.
        sums: uint64 [blocks of this call]; counts: int64 [blocks of this call].
    """
    wide_vectors()
    n = weights.shape[0]
    for b in range(sums.shape[0]):
        total = _ZERO
        positive = 0
        for i in range((first_block + b) * BLOCK, min((first_block + b + 1) * BLOCK, n)):
            total += _floor_mass(weights[i], factor, scale)
            positive += weights[i] > 0.0
        sums[b] = total
        counts[b] = positive


@kernel
def whole_blocks(
    weights: Any,
    factor: float,
    scale: float,
    share: float,
    each: int,
    left: int,
    positive: int,
    first_block: int,
    errors: Any,
    counts: Any,
    gaps: Any,
    lanes: Any,
    masses: Any,
    surplus: Any,
    deficit: Any,
    relative: Any,
    total: Any,
) -> None:
    """The masses of ``floor_sums`` with ``each`` unit more, and ``left`` more spread evenly.

    The k-th positive entry of the table has one of the ``left`` units more if a line from (0, 0)
    to (positive, left) passes a whole number there (Bresenham).

    Args:
        weights, factor, scale: as in ``floor_sums``.
        share: what a weight times ``factor`` should be multiplied by, for the error.
        each, left: units; 0 <= left < positive.
        positive: positive entries of the whole table.
        first_block: the block that ``errors[0]`` belongs to.
        errors: int64 [blocks of this call]: (positive entries before) left modulo ``positive``.
        counts: int64 [blocks of this call], the positive entries of each block.
        gaps: int64 [64]; lanes: float64 [64]; scratch.
        masses: uint64 [n], written in these blocks.
        surplus, deficit: uint64 [blocks of this call], written: what lies above and below a cell.
        relative, total: float64 [blocks of this call], written: the largest relative error of a
            mass, and the sum of absolute errors.
    """
    wide_vectors()
    n = weights.shape[0]
    for b in range(errors.shape[0]):
        start = (first_block + b) * BLOCK
        stop = min(start + BLOCK, n)
        error = errors[b]
        above = below = worst = _ZERO
        for j in range(LANES):
            lanes[j] = 0.0
            gaps[j] = (error + j * left) % positive
        stride = LANES * left % positive
        # where all are positive, the place on the line follows from the index
        side_by_side = start
        if counts[b] == stop - start:
            side_by_side += (stop - start) // LANES * LANES
        for i in range(start, side_by_side, LANES):
            for j in range(LANES):
                w = weights[i + j]
                over = np.uint64(gaps[j] + left >= positive)
                gap = gaps[j] + stride
                gaps[j] = gap - (positive if gap >= positive else 0)
                mass = _floor_mass(w, factor, scale) + (np.uint64(each) + over)
                masses[i + j] = mass
                capped = min(mass, CELL)
                above += mass - capped
                below += CELL - capped
                asked = w * factor * share
                off = abs(float(mass) - asked)
                lanes[j] += off
                worst = max(worst, bits_of(off / max(asked, 1e-300)))
        if side_by_side > start:
            error = gaps[0]
        for i in range(side_by_side, stop):
            w = weights[i]
            mass = _floor_mass(w, factor, scale)
            if mass > _ZERO:
                error += left
                over = np.uint64(error >= positive)
                error -= positive if error >= positive else 0
                mass += np.uint64(each) + over
            masses[i] = mass
            capped = min(mass, CELL)
            above += mass - capped
            below += CELL - capped
            asked = w * factor * share
            off = abs(float(mass) - asked)
            lanes[0] += off
            worst = max(worst, bits_of(off / max(asked, 1e-300)))
        surplus[b] = above
        deficit[b] = below
        relative[b] = double_of(worst)  # the bits of doubles of 0 and more are ordered as they are
        total[b] = lanes.sum()


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
def _next_light(masses: Any, i: int, cell: np.uint64) -> int:
    while i < masses.shape[0] and masses[i] >= cell:
        i += 1
    return i


@helper
def _next_heavy(masses: Any, i: int, cell: np.uint64) -> int:
    while i < masses.shape[0] and masses[i] < cell:
        i += 1
    return i


@helper
def _look_ahead(
    masses: Any, start: int, stop: int, cell: np.uint64, light: bool, ids: Any, sizes: Any, at: int
) -> Any:
    """The next light (or heavy) entries from ``start`` on, to ``ids[at:]`` and ``sizes[at:]``.

    Returns:
        (where to go on, where the list ends).
    """
    end = at
    last = at + _AHEAD
    i = start
    if HAS_COMPRESS:
        while i + 8 <= stop and end + 8 <= last:
            end += compress(masses, i, cell, light, ids, sizes, end)
            i += 8
        if i + 8 <= stop:
            return i, end
    while i < stop and end < last:
        ids[end] = i
        sizes[end] = masses[i]
        end += (masses[i] < cell) == light
        i += 1
    return i, end


@kernel
def fill_part(
    masses: Any, light: Any, stop: int, heavy: Any, held: np.uint64, alias_bits: int, cells: Any
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
    steps choose by masks, from short lists of what comes next.
    """
    n = masses.shape[0]
    shift = np.uint64(alias_bits)
    cell = _ONE << (np.uint64(64) - shift)
    full = (cell - _ONE) << shift
    # light entries stand in the first half, heavy ones in the second
    ids, sizes = np.empty(2 * _AHEAD + 16, np.uint64), np.empty(2 * _AHEAD + 16, np.uint64)
    middle = _AHEAD + 8
    next_heavy = heavy + 1
    i = end_light = np.uint64(0)
    j = end_heavy = np.uint64(middle)
    giver = np.uint64(heavy)
    while giver < np.uint64(n):
        if i == end_light:
            light, end = _look_ahead(masses, light, stop, cell, True, ids, sizes, 0)
            i, end_light = np.uint64(0), np.uint64(end)
        if j == end_heavy:
            next_heavy, end = _look_ahead(masses, next_heavy, n, cell, False, ids, sizes, middle)
            j, end_heavy = np.uint64(middle), np.uint64(end)
        if i == end_light or j == end_heavy:
            break
        while i < end_light and j < end_heavy:
            gives = np.uint64(held > cell)
            mask = _ZERO - gives  # a conditional would be compiled to a branch
            place = j ^ ((j ^ i) & mask)
            entry, size = ids[place], sizes[place]
            swap = (giver ^ entry) & mask
            own, alias = giver ^ swap, entry ^ swap
            threshold = held ^ ((held ^ size) & mask)
            cells[own] = full | giver if held == cell else (threshold << shift) | alias
            held += size - cell
            giver = alias
            i += gives
            j += _ONE - gives
    # one of the lists has ended: what is left is of one kind
    heavy = np.int64(giver)
    if i < end_light:
        light = np.int64(ids[i])
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
