"""Adam on the rows of a table that a step reads, and on no others.

Dense Adam moves every row at every step, by its fading moments where there is no gradient. Here a
row stays as it is until it is read; then the steps that it missed are made up for in closed form:
without gradients the moments are b1^j m and b2^j v after j steps, so the row has moved by ::

    sum_j w_j m / (sqrt(v) r_j + epsilon),  w_j = rate b1^j / (1 - b1^t),
                                            r_j = b2^(j / 2) / sqrt(1 - b2^t),  t = last + j

and this is taken as ``distance m / (sqrt(v) spread + epsilon)`` with distance = sum_j w_j and
spread = distance / sum_j (w_j / r_j): exact where epsilon is small beside sqrt(v) r and where it is
large, and nearly so between, as r_j hardly changes while w_j fades. Both depend on ``last`` and on
the present step alone, so they are tables by the step a row was last brought to.

Shapes: N rows of the table, D columns, n codes read, R distinct rows among them, T steps done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import flat, prefetch, wide_vectors

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_AHEAD = 6  # rows; their lines are asked for so early
_LINE = 16  # float32 of a cache line


@helper
def _ask_for(table: Any, first: int, width: int) -> None:
    """Ask for the lines of a row of ``flat(table)``."""
    for c in range(0, width, _LINE):
        prefetch(table, first + c)


@kernel
def count_step(
    distance: Float64, over: Float64, spread: Float64, step: int, left: float, fading: Float64,
    over_fading: Float64, whole: float, root: float,
) -> None:  # fmt: skip
    """One more step in the tables by the step that a row has reached.

    Args:
        distance, over, spread: [T + 1] or more; the sums of w_j and of w_j / r_j, and their ratio.
        step: T, that was done now.
        left: what weight decay leaves of a weight.
        fading, over_fading: w_j and w_j / r_j but for their denominators, the oldest first.
        whole, root: 1 - b1^T and sqrt(1 - b2^T).
    """
    count = min(step, fading.size)
    for k in range(count):
        place, age = step - count + k, fading.size - count + k
        distance[place] = distance[place] * left + fading[age] / whole
        over[place] = over[place] * left + over_fading[age] * (root / whole)
        spread[place] = distance[place] / over[place]


@kernel
def number_codes(codes: Int64, slots: Any, rows: Int64, places: Int64) -> int:
    """Distinct codes in the order they first come in, and which of them each code is.

    Args:
        codes: [n], below 0 for none.
        slots: int32 [N], -1 on entry and on exit.
        rows: [n], the first R are written.
        places: [n], written: ``rows[places[i]] == codes[i]``, or -1.

    Returns:
        R.
    """
    count = 0
    for i in range(codes.shape[0]):
        code = codes[i]
        place = -1
        if code >= 0:
            place = slots[code]
            if place < 0:
                place = count
                slots[code] = count
                rows[count] = code
                count += 1
        places[i] = place
    for k in range(count):
        slots[rows[k]] = -1
    return count


@kernel
def add_gradients(gradients: Float32, places: Int64, sums: Float32) -> None:
    """``sums[places[i]] += gradients[i]`` in the order of i, for places that are not below 0."""
    for i in range(places.shape[0]):
        place = places[i]
        if place >= 0:
            total, part = sums[place], gradients[i]
            for c in range(total.shape[0]):
                total[c] += part[c]


@kernel
def bring_up_to_date(
    weight: Float32,
    first: Float32,
    second: Float32,
    reached: Int64,
    rows: Int64,
    step: int,
    distance: Float64,
    spread: Float64,
    kept: Float64,
    powers: Float64,
    epsilon: np.float32,
    start: int,
    stop: int,
) -> None:
    """Make up for the steps that ``rows[start:stop]`` missed, none of which gave them a gradient.

    Args:
        weight, first, second: [N, D], a table and its moments.
        reached: [N], the step that each row is brought to, at most ``step``.
        rows: [R], distinct.
        step: T.
        distance, spread: [T + 1], by the step that a row has reached.
        kept: [T + 1, 3], by the number of steps missed: what is left of the weight, of the first
            moment, of the second.
        powers: [T + 1], by the number of steps missed: what weight decay leaves of ``distance``
            after the steps that it counts.
    """
    wide_vectors()
    width = weight.shape[1]
    for k in range(start, stop):
        ahead = rows[min(k + _AHEAD, stop - 1)] * width
        _ask_for(flat(weight), ahead, width)
        _ask_for(flat(first), ahead, width)
        _ask_for(flat(second), ahead, width)
        row = rows[k]
        last = reached[row]
        missed = step - last
        if missed == 0:
            continue
        far = np.float32(distance[last] * powers[missed])
        wide = np.float32(spread[last])
        of_weight = np.float32(kept[missed, 0])
        of_first = np.float32(kept[missed, 1])
        of_second = np.float32(kept[missed, 2])
        w, m, v = weight[row], first[row], second[row]
        for c in range(width):
            w[c] = of_weight * w[c] - far * m[c] / (np.sqrt(v[c]) * wide + epsilon)
            m[c] = of_first * m[c]
            v[c] = of_second * v[c]
        reached[row] = step


@kernel
def read_rows(
    weight: Float32,
    first: Float32,
    second: Float32,
    reached: Int64,
    codes: Int64,
    step: int,
    distance: Float64,
    spread: Float64,
    kept: Float64,
    powers: Float64,
    epsilon: np.float32,
    vectors: Float32,
    start: int,
    stop: int,
) -> None:
    """The rows ``codes[start:stop]`` as ``bring_up_to_date`` would leave them; tables stay.

    Args:
        weight, first, second, reached, step, distance, spread, kept, powers, epsilon: as there.
        codes: [n], below 0 for none.
        vectors: [n, D], written; zeros for none.
    """
    wide_vectors()
    width = weight.shape[1]
    for k in range(start, stop):
        ahead = max(0, codes[min(k + _AHEAD, stop - 1)]) * width
        _ask_for(flat(weight), ahead, width)
        _ask_for(flat(first), ahead, width)
        _ask_for(flat(second), ahead, width)
        row, out = codes[k], vectors[k]
        if row < 0:
            out[:] = np.float32(0.0)
            continue
        w = weight[row]
        last = reached[row]
        missed = step - last
        if missed == 0:
            out[:] = w
            continue
        far = np.float32(distance[last] * powers[missed])
        wide = np.float32(spread[last])
        of_weight = np.float32(kept[missed, 0])
        m, v = first[row], second[row]
        for c in range(width):
            out[c] = of_weight * w[c] - far * m[c] / (np.sqrt(v[c]) * wide + epsilon)


@kernel
def update_rows(
    weight: Float32,
    first: Float32,
    second: Float32,
    reached: Int64,
    rows: Int64,
    sums: Float32,
    step: int,
    numbers: Float32,
    start: int,
    stop: int,
) -> None:
    """One step of AdamW with the gradients ``sums`` [R, D] of ``rows[start:stop]``.

    Args:
        weight, first, second, reached, rows: as in ``bring_up_to_date``; up to date.
        step: the number of this step, from 1.
        numbers: [8], b1, 1 - b1, b2, 1 - b2, rate / (1 - b1^t), 1 / sqrt(1 - b2^t), what
            weight decay leaves of a weight, epsilon.
    """
    wide_vectors()
    beta1, other1, beta2, other2 = numbers[0], numbers[1], numbers[2], numbers[3]
    rate, root, left, epsilon = numbers[4], numbers[5], numbers[6], numbers[7]
    width = weight.shape[1]
    for k in range(start, stop):
        ahead = rows[min(k + _AHEAD, stop - 1)] * width
        _ask_for(flat(weight), ahead, width)
        _ask_for(flat(first), ahead, width)
        _ask_for(flat(second), ahead, width)
        row = rows[k]
        w, m, v, g = weight[row], first[row], second[row], sums[k]
        for c in range(width):
            m[c] = beta1 * m[c] + other1 * g[c]
            v[c] = beta2 * v[c] + other2 * g[c] * g[c]
            w[c] = left * w[c] - rate * m[c] / (np.sqrt(v[c]) * root + epsilon)
        reached[row] = step
