"""Log-uniform draws over huge catalogs: geometric bins, an alias table over them, a coin inside.

The id i has weight ln(1 + 1 / (i + 1)). Bins are 1/32 of an octave wide, so that no weight in one
is below 0.97 of its largest: a bin is drawn in proportion to (ids) x (largest weight), an id of it
uniformly, and kept with probability (its weight) / (largest weight). Nothing here is as long as
the catalog, and no draw passes through a cumulative sum over it.

A bin's ``gain`` is what its weights are multiplied by in truth, because masses are whole numbers:
q(i) = gain[bin of i] * weight(i).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastneg.kernels.exclusion import contains, skip_excluded
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import operation
from fastneg.kernels.pow import log
from fastneg.kernels.rng import multiply_high, row_key, unit_interval, word

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
CELL_BITS = 7  # cells of the look-up by leading bits: 128 an octave, a bin starts in one at most
_COIN = 5.421010862427522e-20  # 2^-64
_FINISH = 16  # coins tossed when a draw is finished; all fail once in 10^20


def _product_of_words(typing_context: Any, a: Any, b: Any) -> Any:
    """The 128-bit product of two words: (upper half, lower half)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        low = builder.trunc(product, ir.IntType(64))
        return context.make_tuple(builder, signature.return_type, [high, low])

    pair: Any = types.Tuple
    return pair((types.uint64, types.uint64))(types.uint64, types.uint64), generate


def _two_halves(a: Any, b: Any) -> Any:
    return multiply_high(a, b), a * b


_product: Any = operation(_product_of_words, _two_halves)


@helper
def _tail(z: float) -> float:
    """atanh(s) / s - 1 for z = s^2 <= 1 / 33^2."""
    tail = 1.0 / 11.0
    tail = tail * z + 1.0 / 9.0
    tail = tail * z + 1.0 / 7.0
    tail = tail * z + 1.0 / 5.0
    tail = tail * z + 1.0 / 3.0
    return z * tail


@helper
def weight_of(item: int) -> float:
    """ln(1 + 1 / (item + 1)) = 2 atanh(1 / (2 item + 3)), to the last bit or two at any id."""
    x = float(item) + 1.0
    if x < 16.0:
        return log(1.0 + 1.0 / x)
    s = 1.0 / (2.0 * x + 1.0)
    return 2.0 * (s + s * _tail(s * s))


@helper
def _kept(low: np.uint64, item: int, peak: float) -> bool:
    """Whether the coin ``low`` / 2^64 keeps an id of a bin with this largest weight."""
    return float(low) * _COIN * peak < weight_of(item)


@kernel
def bin_weights(firsts: Any, peaks: Any, lasts: Any, totals: Any) -> None:
    """Per bin: its largest weight, its smallest and their sum, ln(first of the next / first).

    Args:
        firsts: int64 [bins + 1], the first id of each bin; bins of several ids start at 15 or up.
        peaks, lasts, totals: float64 [bins], written.
    """
    for b in range(peaks.shape[0]):
        peaks[b], lasts[b] = weight_of(firsts[b]), weight_of(firsts[b + 1] - 1)
        totals[b] = peaks[b]
        if firsts[b + 1] - firsts[b] > 1:
            s = float(firsts[b + 1] - firsts[b]) / float(firsts[b + 1] + firsts[b] + 2)
            totals[b] = 2.0 * (s + s * _tail(s * s))


@helper
def _pick(cells: Any, w: np.uint64) -> Any:
    """A bin from the alias table (see ``alias.py``), chosen without a branch to mispredict."""
    n = np.uint64(cells.shape[0])
    t = (w >> _S32) * n + (((w & _LOW) * n) >> _S32)
    own, cell = t >> _S32, cells[t >> _S32]
    alias = cell & _LOW
    return alias ^ ((alias ^ own) & (_ZERO - np.uint64((t & _LOW) < (cell >> _S32))))


@helper
def _try_again(
    cells: Any,
    firsts: Any,
    peaks: Any,
    excluded: Any,
    low: int,
    high: int,
    attempts: int,
    start: np.uint64,
    places: np.uint64,
    draw: np.uint64,
) -> Any:
    """The first attempt after attempt 0 whose coin keeps an allowed id; -1 if there is none."""
    for attempt in range(1, attempts):
        bin_ = _pick(cells, word(start, draw, np.uint64(attempt)))
        first = firsts[bin_]
        size = np.uint64(firsts[bin_ + _ONE] - first)
        place, coin = _product(word(places, draw, np.uint64(attempt)), size)
        item = first + np.int64(place)
        if _kept(coin, item, peaks[bin_]) and not contains(excluded, low, high, item):
            return item
    return np.int64(-1)


@kernel
def draw_log_uniform(
    cells: Any,
    firsts: Any,
    peaks: Any,
    certain: np.uint64,
    indptr: Any,
    excluded: Any,
    owner: Any,
    attempts: Any,
    key: np.uint64,
    place_key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> int:
    """Draws by bins, repeated while they fall on an excluded id; rows, source: see ``draws.py``.

    Args:
        cells: uint64 [bins], the packed table over the bins.
        firsts: int64 [bins + 1], the first id of each bin; peaks: float64 [bins], its weight.
        certain: coins below it (of 2^64) are heads in every bin; it decides speed only.
        attempts: int8 [B], 0 to 16: how often a row tries. An unresolved cell gets -1.
        key, place_key: of the words for the bins, and for the places inside them.
        items: int64 [B, K].

    Returns:
        The number of cells left at -1.
    """
    everything = source.shape[0] == 0
    unresolved = 0
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start, places = row_key(key, np.uint64(rows[b])), row_key(place_key, np.uint64(rows[b]))
        tries = attempts[b]
        if everything and low == high:
            for d in range(items.shape[1]):
                draw = np.uint64(first_draw + d)
                bin_ = _pick(cells, word(start, draw, _ZERO))
                first = firsts[bin_]
                size = np.uint64(firsts[bin_ + _ONE] - first)
                place, coin = _product(word(places, draw, _ZERO), size)
                item = first + np.int64(place)
                if coin >= certain and not _kept(coin, item, peaks[bin_]):
                    item = _try_again(
                        cells, firsts, peaks, excluded, low, high, tries, start, places, draw
                    )
                    if item < 0:
                        unresolved += 1
                items[b, d] = item
            continue
        for d in range(items.shape[1]):
            if not (everything or source[b, d] == base):
                continue
            draw = np.uint64(first_draw + d)
            bin_ = _pick(cells, word(start, draw, _ZERO))
            first = firsts[bin_]
            size = np.uint64(firsts[bin_ + _ONE] - first)
            place, coin = _product(word(places, draw, _ZERO), size)
            item = first + np.int64(place)
            lost = coin >= certain and not _kept(coin, item, peaks[bin_])
            if tries == 0 or lost or contains(excluded, low, high, item):
                item = _try_again(
                    cells, firsts, peaks, excluded, low, high, tries, start, places, draw
                )
                if item < 0:
                    unresolved += 1
            items[b, d] = item
    return unresolved


@helper
def _finish_draw(
    firsts: Any,
    peaks: Any,
    excluded: Any,
    edges: Any,
    running: Any,
    start: np.uint64,
    places: np.uint64,
    draw: np.uint64,
    attempt: int,
) -> Any:
    """A bin by its allowed ids, an allowed rank in it, a coin; the last try needs no coin."""
    bins = running.shape[0]
    item = np.int64(-1)
    for turn in range(_FINISH):
        number = np.uint64(attempt + turn)
        point = unit_interval(word(start, draw, number)) * running[bins - 1]
        left, right = 0, bins - 1  # the first bin whose running sum is above the point
        while left < right:
            middle = (left + right) >> 1
            if running[middle] <= point:
                left = middle + 1
            else:
                right = middle
        while left > 0 and running[left] <= running[left - 1]:
            left -= 1  # rounding put the point on the sum of all; the last bins are empty
        before, after = edges[left], edges[left + 1]
        allowed = np.uint64(firsts[left + 1] - firsts[left] - (after - before))
        high, low = _product(word(places, draw, number), allowed)
        item = skip_excluded(excluded, before, after, firsts[left] + np.int64(high))
        if _kept(low, item, peaks[left]):
            break
    return item


@kernel
def finish_log_uniform(
    masses: Any,
    firsts: Any,
    peaks: Any,
    indptr: Any,
    excluded: Any,
    owner: Any,
    attempts: Any,
    key: np.uint64,
    place_key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Finish the cells at -1: nothing excluded is drawn here, only coins are tossed.

    A row's bins are weighed by the ids that are left in them, and a rank among these is drawn. The
    words are those of the attempts after the last.

    Args:
        masses: uint64 [bins], what the table was filled from.
        others: as in ``draw_log_uniform``; every row has an allowed id.
    """
    everything = source.shape[0] == 0
    bins = masses.shape[0]
    edges, running = np.empty(bins + 1, dtype=np.int64), np.empty(bins, dtype=np.float64)
    for b in range(rows.shape[0]):
        ready = False
        for d in range(items.shape[1]):
            if not (everything or source[b, d] == base) or items[b, d] >= 0:
                continue
            if not ready:
                ready = True
                i = high = 0
                if owner[b] >= 0:
                    i, high = indptr[owner[b]], indptr[owner[b] + 1]
                total = 0.0
                edges[0] = i
                for bin_ in range(bins):
                    while i < high and excluded[i] < firsts[bin_ + 1]:
                        i += 1
                    edges[bin_ + 1] = i
                    size = firsts[bin_ + 1] - firsts[bin_]
                    left = size - (i - edges[bin_])
                    total += float(masses[bin_]) * (float(left) / float(size))
                    running[bin_] = total
            items[b, d] = _finish_draw(
                firsts, peaks, excluded, edges, running,
                row_key(key, np.uint64(rows[b])), row_key(place_key, np.uint64(rows[b])),
                np.uint64(first_draw + d), attempts[b],
            )  # fmt: skip


@kernel
def allowed_shares(
    indptr: Any, excluded: Any, firsts: Any, peaks: Any, gains: Any, shares: Any, out: Any
) -> None:
    """out[l] = the probability of what list l leaves allowed; 0 exactly where it leaves nothing.

    Args:
        indptr: int64 [lists + 1]; excluded: ids, ascending in each list.
        firsts: int64 [bins + 1]; peaks, gains: float64 [bins].
        shares: float64 [bins], the probability of each bin.
        out: float64 [lists].
    """
    bins = shares.shape[0]
    for o in range(out.shape[0]):
        low, high = indptr[o], indptr[o + 1]
        gone = 0.0
        bin_ = 0
        for i in range(low, high):
            while excluded[i] >= firsts[bin_ + 1]:
                bin_ += 1
            gone += gains[bin_] * weight_of(excluded[i])
        if gone <= 0.5:
            out[o] = 1.0 - gone
            continue
        rest = 0.0  # what is left of each bin: 1 - gone would have lost its digits
        i = low
        for bin_ in range(bins):
            begin, part = i, shares[bin_]
            while i < high and excluded[i] < firsts[bin_ + 1]:
                part -= gains[bin_] * weight_of(excluded[i])
                i += 1
            left = firsts[bin_ + 1] - firsts[bin_] - (i - begin)
            if left > 0:
                least = gains[bin_] * weight_of(firsts[bin_ + 1] - 1)
                rest += max(part, float(left) * least)
        out[o] = rest


@helper
def leading_bits(item: int) -> Any:
    """Which of the 128 cells of which octave item + 1 lies in, counted from item 0 on."""
    bits = np.float64(item + 1).view(np.uint64)
    return (bits >> np.uint64(52 - CELL_BITS)) - np.uint64(1023 << CELL_BITS)


@helper
def log1p(u: float) -> float:
    """ln(1 + u) for 0 <= u < 0.025."""
    total = -1.0 / 10.0
    total = total * u + 1.0 / 9.0
    total = total * u - 1.0 / 8.0
    total = total * u + 1.0 / 7.0
    total = total * u - 1.0 / 6.0
    total = total * u + 1.0 / 5.0
    total = total * u - 1.0 / 4.0
    total = total * u + 1.0 / 3.0
    total = total * u - 0.5
    return u + u * (u * total)


@helper
def series(r: float) -> float:
    """ln(weight (item + 1.5)) with r = 1 / (item + 1.5) <= 1 / 46: ln(atanh(r / 2) / (r / 2))."""
    z = 0.25 * r * r
    return z * (1.0 / 3.0 + z * (13.0 / 90.0 + z * (251.0 / 2835.0)))


@kernel
def log_uniform_log_q(
    lookup: Any, firsts: Any, bases: Any, inverses: Any, items: Any, log_allowed: Any, out: Any
) -> None:
    """out[b, d] = ln q(items[b, d]) - log_allowed[b], in double precision, rounded once.

    Args:
        lookup: int16, by ``leading_bits``: how many bins begin in an earlier cell, but the first.
        firsts: int64 [bins + 1].
        inverses: float64 [bins], 1 / (first + 1.5); 0 in bins of one id.
        bases: float64 [bins], ln(gain / (first + 1.5)); ln q in bins of one id.
        items: int64 [B, K]; log_allowed: float64 [B]; out: float32 or float64 [B, K].
    """
    for b in range(items.shape[0]):
        rest = log_allowed[b]
        for d in range(items.shape[1]):
            item = items[b, d]
            bin_ = np.int64(lookup[leading_bits(item)])
            bin_ += item >= firsts[bin_ + 1]
            inverse = inverses[bin_]
            # weights in a bin are as 1 / (item + 1.5), but for the series
            u = float(item - firsts[bin_]) * inverse
            value = bases[bin_] - log1p(u) + series(inverse / (1.0 + u))
            value -= rest
            if value > 0.0:  # the last id left: ln 1, but for rounding
                value = 0.0
            out[b, d] = value
