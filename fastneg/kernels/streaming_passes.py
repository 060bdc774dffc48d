"""The passes of a draw from buckets: each is a kernel over lists of some 1,024 draws.

Pass by pass, so that the misses of one draw do not wait for those of another; as kernels, so that
LLVM knows that the lists do not overlap and puts a pass into vectors. ``streaming.py`` names the
arrays. The lists: ``draws`` the numbers of the draws, ascending, ``kept`` their buckets, ``found``
places and then items, ``coins`` coins and then refusals (1 or 0), all uint64; the first ``tries``
entries count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.exclusion import contains
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import wide_vectors
from fastneg.kernels.rng import multiply_high, word
from fastneg.kernels.streaming import share_of

ATTEMPTS = 16  # places that a draw tries before it walks through the bucket
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)


@helper
def _pick(cells: Any, g: int, w: np.uint64) -> Any:
    """A bucket: the upper g bits of the word are the cell, the next 62 - g the coin.

    cells: in one dimension, as are ``records`` in ``judge``: a row's place is a shift away then.
    """
    cell = (w >> np.uint64(64 - g)) * _THREE
    coin = np.int64((w << np.uint64(g)) >> np.uint64(g + 2))
    return cells[cell + (_TWO if coin >= cells[cell] else _ONE)]


@helper
def _scaled(w: np.uint64, size: np.uint64) -> np.uint64:
    """``multiply_high`` for a size below 2^32."""
    return ((w >> _S32) * size + (((w & _LOW) * size) >> _S32)) >> _S32


@kernel
def pick_buckets(tries: int, cells: Any, g: int, start: np.uint64, first: np.uint64, draws: Any,
                 kept: Any) -> None:  # fmt: skip
    """The bucket of every draw: its attempt 0."""
    wide_vectors()
    flat = cells.reshape(-1)
    for p in range(tries):
        kept[p] = _pick(flat, g, word(start, first + draws[p], _ZERO))


@kernel
def pick_places(tries: int, attempt: int, start: np.uint64, first: np.uint64, draws: Any,
                kept: Any, spans: Any, drop: np.uint64, found: Any,
                coins: Any) -> None:  # fmt: skip
    """A place in the bucket of every draw, and a coin."""
    wide_vectors()
    for p in range(tries):
        span = spans[kept[p]]
        w = word(start, first + draws[p], np.uint64(attempt))
        found[p] = (span >> _S32) + _scaled(w, span & _LOW)
        coins[p] = (w * (span & _LOW)) >> drop


@kernel
def look_up(tries: int, found: Any, order: Any) -> None:
    """The item of every place."""
    wide_vectors()
    for p in range(tries):
        found[p] = np.uint64(order[found[p]])


@kernel
def judge(tries: int, found: Any, kept: Any, coins: Any, records: Any, shares: Any, law: Any,
          largest: int, many: np.uint64, limits: Any) -> None:  # fmt: skip
    """coins[p] = 1 where the coin is refused, else 0; ``limits`` is scratch.

    An item's count is not looked at where its bucket holds one count only.
    """
    wide_vectors()
    flat = records.reshape(-1)
    for p in range(tries):
        limits[p] = flat[found[p] * _TWO if kept[p] >= many else _ZERO]
    if largest < shares.shape[0]:
        for p in range(tries):
            limits[p] = shares[limits[p]]
    else:
        for p in range(tries):
            limits[p] = share_of(np.int64(limits[p]), shares, law)
    for p in range(tries):
        coins[p] = np.uint64((kept[p] >= many) & (coins[p] >= limits[p]))


@kernel
def refuse_excluded(tries: int, found: Any, excluded: Any, low: int, high: int,
                    coins: Any) -> None:  # fmt: skip
    """Refuse the items of a sorted list, excluded[low:high], too."""
    for p in range(tries):
        coins[p] |= np.uint64(contains(excluded, low, high, np.int64(found[p])))


@kernel
def hand_out(tries: int, found: Any, draws: Any, kept: Any, coins: Any, out: Any,
             refused: Any) -> Any:  # fmt: skip
    """Write every item; the draws that were refused stand in front afterwards.

    ``refused`` is scratch.
    """
    first = draws[0]
    if draws[tries - 1] - first == np.uint64(tries - 1):  # they ascend: without a gap
        for p in range(tries):
            out[first + np.uint64(p)] = np.int64(found[p])
    else:
        for p in range(tries):
            out[draws[p]] = np.int64(found[p])
    rejected = np.uint64(0)
    for p in range(tries):
        refused[rejected] = np.uint64(p)
        rejected += coins[p]
    for r in range(np.int64(rejected)):
        p = refused[r]
        kept[r], draws[r] = kept[p], draws[p]
    return np.int64(rejected)


@kernel
def finish(tries: int, attempt: int, draws: Any, kept: Any, points: Any, spans: Any, left: Any,
           records: Any, order: Any, shares: Any, law: Any, excluded: Any, low: int, high: int,
           start: np.uint64, first: np.uint64, out: Any) -> int:  # fmt: skip
    """Draw after draw from this attempt on.

    Draws that are refused to the last stand in front afterwards, each with a point of what is
    ``left`` of its bucket in ``points``.

    Returns:
        The number of these.
    """
    drop = np.uint64(64 - np.int64(law[3]))
    refused = 0
    for p in range(tries):
        bucket, draw = kept[p], draws[p]
        span = spans[bucket]
        begin, size = span >> _S32, span & _LOW
        item, tried = np.int64(-1), attempt
        while item < 0 and tried <= ATTEMPTS:
            w = word(start, first + draw, np.uint64(tried))
            item = np.int64(order[begin + _scaled(w, size)])
            if (w * size) >> drop >= share_of(records[np.uint64(item), 0], shares, law) or (
                low < high and contains(excluded, low, high, item)
            ):
                item = np.int64(-1)
            tried += 1
        if item < 0:
            w = word(start, first + draw, np.uint64(tried))
            draws[refused], kept[refused] = draw, bucket
            points[refused] = multiply_high(w, left[bucket])
            refused += 1
        out[draw] = item
    return refused
