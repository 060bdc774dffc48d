"""Weights become whole masses that sum to what a table holds, the same at any number of threads."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, frozen
from fastneg.kernels.alias import CELL
from fastneg.kernels.alias_build import (
    BLOCK,
    LANES,
    block_sums,
    fill_part,
    find_heavy,
    floor_sums,
    survey_blocks,
    whole_blocks,
)
from fastneg.threads import get_num_threads, run_chunks

Masses = npt.NDArray[np.uint64]
_SMALLEST = 16  # blocks below which a chunk is not worth a thread
_BITS = 32  # of an alias in a packed cell
_INFINITY = 0x7FF0000000000000  # its bits; those of what is no weight come after


class Survey(NamedTuple):
    """What one look at weights says: their sum, the smallest positive one, the largest."""

    total: float
    smallest: float
    largest: float


class WholeMasses(NamedTuple):
    """Masses uint64 [n] that sum to n 2^32, and by block what lies above and below a cell."""

    masses: Masses
    num_positive: int
    surplus: Masses
    deficit: Masses
    error: dict[str, float]


def survey(weights: FloatArray) -> Survey | None:
    """One look at float64 [n]; None unless all are finite and 0 or more, one of them positive."""
    weights = frozen(weights)
    blocks = -(-len(weights) // BLOCK)
    sums = np.empty(blocks)
    least, largest = np.empty(blocks, dtype=np.uint64), np.empty(blocks, dtype=np.uint64)
    run_chunks(
        lambda i, j: survey_blocks(
            weights, i, np.empty(LANES), sums[i:j], least[i:j], largest[i:j]
        ),
        blocks,
        smallest=_SMALLEST,
    )  # fmt: skip
    if not 0 < int(largest.max()) < _INFINITY:
        return None
    ends = np.array([least.min() + np.uint64(1), largest.max()])
    return Survey(_in_order(sums), *ends.view(np.float64).tolist())


def whole_masses(weights: FloatArray, seen: Survey) -> WholeMasses:
    """Masses in proportion to the weights, with sums that the parts of a sweep start from.

    A weight that would fall below 1 gets 1; the others share what is left and are rounded down,
    and the units that rounding left over are spread evenly. Sums are taken in blocks of a fixed
    size, in order, so that they do not depend on threads. One array of masses is all that is made.

    Args:
        weights: float64 [n].
        seen: what ``survey`` says of them.
    """
    weights = frozen(weights)
    n, target = len(weights), len(weights) << _BITS
    blocks = -(-n // BLOCK)
    everything, smallest, largest = seen
    factor = _factor(largest)
    if factor != 1.0:
        everything, _ = block_totals(weights, factor, 0.0)
    limit = everything / target
    large, num_small = everything, 0
    if smallest * factor < limit:
        large, num_small = block_totals(weights, factor, limit)
    scale, share = float(target - num_small) / large, target / everything
    sums, positive = np.zeros(blocks, dtype=np.uint64), np.zeros(blocks, dtype=np.int64)
    run_chunks(
        lambda i, j: floor_sums(weights, factor, scale, i, sums[i:j], positive[i:j]),
        blocks,
        smallest=_SMALLEST,
    )
    rest, count = target - int(sums.sum()), int(positive.sum())
    each, left = divmod(max(0, rest), count)
    before = np.cumsum(positive) - positive
    errors = frozen(np.array([p * left % count for p in before.tolist()], dtype=np.int64))
    positive = frozen(positive)
    masses: Masses = np.empty(n, dtype=np.uint64)
    surplus, deficit = np.zeros(blocks, dtype=np.uint64), np.zeros(blocks, dtype=np.uint64)
    relative, total = np.zeros(blocks), np.zeros(blocks)
    run_chunks(
        lambda i, j: whole_blocks(
            weights, factor, scale, share, each, left, count, i, errors[i:j], positive[i:j],
            np.empty(LANES, dtype=np.int64), np.empty(LANES), masses,
            surplus[i:j], deficit[i:j], relative[i:j], total[i:j],
        ),
        blocks,
        smallest=_SMALLEST,
    )  # fmt: skip
    if rest < 0:  # rounding of the scale, or weights just above the limit: units of the largest
        top = int(masses.argmax())
        masses[top] -= np.uint64(-rest)
        b = top // BLOCK
        block = masses[b * BLOCK : (b + 1) * BLOCK]
        capped = np.minimum(block, CELL)
        surplus[b], deficit[b] = (block - capped).sum(), (CELL - capped).sum()
        asked = float(weights[top]) * factor * share
        relative[b] = max(relative[b], abs(float(masses[top]) - asked) / asked)
        total[b] -= rest
    error = {
        "max_relative": float(relative.max()),
        "total_variation": 0.5 * math.fsum(total.tolist()) / float(target),
    }
    return WholeMasses(masses, count, surplus, deficit, error)


def integer_masses(weights: FloatArray) -> Masses:
    """uint64 [n] that sum to exactly n 2^32, in proportion to checked weights."""
    seen = survey(weights)
    assert seen is not None
    return whole_masses(weights, seen).masses


def _factor(largest: float) -> float:
    """A power of 2 that keeps sums of weights and their inverses within the range of doubles."""
    exponent = math.frexp(largest)[1]
    return 1.0 if -500 < exponent < 500 else 2.0 ** max(-1000, min(1000, -exponent))


def block_totals(weights: FloatArray, factor: float, limit: float) -> tuple[float, int]:
    """The sum of the weights of ``limit`` or more, and how many lie in (0, limit)."""
    weights = frozen(weights)
    blocks = -(-len(weights) // BLOCK)
    sums, small = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    run_chunks(
        lambda i, j: block_sums(weights, factor, limit, sums[i:j], small[i:j], i),
        blocks,
        smallest=_SMALLEST,
    )
    return _in_order(sums), int(small.sum())


def _in_order(sums: FloatArray) -> float:
    total = 0.0
    for block_sum in sums.tolist():
        total += block_sum
    return total


def fill_cells(whole: WholeMasses, cells: Masses) -> None:
    """The packed table of the masses, in parts that run side by side.

    A part takes the light entries of a stretch of blocks; which heavy entry serves its first one
    follows from the deficits before it, so the parts together are the one sweep.
    """
    masses = frozen(whole.masses)
    n, blocks = len(masses), len(whole.surplus)
    parts = max(1, min(get_num_threads(), blocks // _SMALLEST))
    borders = [blocks * p // parts for p in range(parts + 1)]
    surplus = np.concatenate([np.zeros(1, np.uint64), np.cumsum(whole.surplus, dtype=np.uint64)])
    deficit = np.concatenate([np.zeros(1, np.uint64), np.cumsum(whole.deficit, dtype=np.uint64)])
    states: list[tuple[int, np.uint64]] = []
    for border in borders[:-1]:
        given = deficit[border]
        if border == 0:
            heavy = first_heavy(masses)
            states.append((heavy, masses[heavy]))
        else:  # the block in which the running surplus first exceeds what was given
            block = int(np.searchsorted(surplus, given, side="right")) - 1
            if block >= blocks:
                states.append((n, CELL))
            else:
                states.append(find_heavy(masses, block * BLOCK, surplus[block], given))

    def fill(first: int, last: int) -> None:
        for p in range(first, last):
            heavy, held = states[p]
            light = min(borders[p] * BLOCK, n)
            stop = n if p == parts - 1 else borders[p + 1] * BLOCK
            fill_part(masses, light, stop, heavy, np.uint64(held), _BITS, cells)

    run_chunks(fill, parts)


def first_heavy(masses: Masses) -> int:
    """The first entry of a cell or more."""
    for start in range(0, len(masses), 1 << 20):
        found = masses[start : start + (1 << 20)] >= np.uint64(CELL)
        if found.any():
            return start + int(found.argmax())
    return len(masses)
