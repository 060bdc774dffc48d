"""The best ranks of a row of scores: admit, compact, rescore, sort.

Products come in tiles of ascending item ids and may be off by up to ``slack`` in every entry (any
summation order, any instruction set). A row's buffer takes every item that could still belong to
its ``depth`` best; when the buffer is full it is cut back without a sort. What is left at the end
is scored again by ``exact_score``, whose summation order is fixed, so that ranks depend on the
vectors alone: not on tiles, threads or the library that made the products.

Why nothing is lost: let a be the depth-th best product seen. At least ``depth`` items have scores
of a - slack or more, so a later item (a higher id, which loses ties) needs a score above that, and
its product is above a - 2 slack. After an exact cut the bound is the depth-th best score - slack.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.lanes import inner_product
from fastneg.kernels.llvm import prefetch

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

_AHEAD = 12  # vectors asked for before the one that is scored
_GROUP = 64  # products compared at once before any of them is looked at
_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_BYTE = np.uint32(0xFF)
_S32 = np.uint64(32)


@helper
def exact_score(queries: Floats, row: int, items: Floats, item: int) -> np.float32:
    """The inner product, summed in float64 in a fixed order, rounded once; never -0.0."""
    score = np.float32(inner_product(queries[row], items[item]))
    return score + np.float32(0.0)


@helper
def ordered_bits(bits: np.uint32) -> np.uint32:
    """The bits of a float32 as a word that orders as the floats do; -0.0 lies below 0.0."""
    return ~bits if bits & _SIGN else bits | _SIGN


@helper
def kth_largest(values: Floats, count: int, k: int) -> np.float32:
    """The k-th largest (from 1) of ``values[:count]``, which is used up.

    Radix selection, a byte at a time from the top: count the bytes, find the one that the k-th
    falls on, keep what shares it. No branch depends on a score, so none is mispredicted.
    """
    words = values.view(np.uint32)
    for c in range(count):
        words[c] = ordered_bits(words[c])
    bins = np.empty(256, np.int32)
    for shift in (np.uint32(24), np.uint32(16), np.uint32(8), np.uint32(0)):
        bins[:] = 0
        for c in range(count):
            bins[(words[c] >> shift) & _BYTE] += 1
        digit = 255
        while k > bins[digit]:
            k -= bins[digit]
            digit -= 1
        kept = 0
        for c in range(count):
            word = words[c]
            words[kept] = word
            kept += ((word >> shift) & _BYTE) == np.uint32(digit)
        count = kept
    words[0] = words[0] ^ _SIGN if words[0] & _SIGN else ~words[0]
    edge: np.float32 = values[0]
    return edge


@helper
def sort_key(bits: np.uint32, item: int) -> np.uint64:
    """A word that orders by score, then by lower id; ``bits`` are the score's as float32."""
    return (np.uint64(ordered_bits(bits)) << _S32) | np.uint64(_ALL - np.uint32(item))


@helper
def key_item(key: np.uint64) -> np.int32:
    """The item of a sort key."""
    return np.int32(_LOW - (key & _LOW))


@helper
def contains(values: Ints, start: int, stop: int, wanted: int) -> bool:
    """Whether ``wanted`` is in the ascending ``values[start:stop]``."""
    end = stop
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < wanted:
            start = middle + 1
        else:
            stop = middle
    return start < end and values[start] == wanted


@helper
def _keep_products(
    items: Codes, scores: Floats, count: int, depth: int, slack: float, scratch: Floats
) -> tuple[int, np.float32]:
    """Drop what cannot be among the best, judged by products; returns (count, bound)."""
    scratch[:count] = scores[:count]
    edge = kth_largest(scratch, count, depth)
    bound = np.float32(np.float64(edge) - 2.0 * slack)
    kept = 0
    for c in range(count):
        score = scores[c]
        items[kept], scores[kept] = items[c], score
        kept += score >= bound  # no branch: whether it stays is a fair coin
    return kept, bound


@helper
def _keep_exact(
    items: Codes,
    scores: Floats,
    count: int,
    depth: int,
    slack: float,
    scratch: Floats,
    queries: Floats,
    row: int,
    vectors: Floats,
) -> tuple[int, np.float32]:
    """Score again and keep exactly the ``depth`` best, ties to the lower id (ids ascend)."""
    for c in range(count):
        scores[c] = exact_score(queries, row, vectors, items[c])
        scratch[c] = scores[c]
    edge = kth_largest(scratch, count, depth)
    above = 0
    for c in range(count):
        above += scores[c] > edge
    ties = depth - above
    kept = 0
    for c in range(count):
        if scores[c] > edge or (scores[c] == edge and ties > 0):
            ties -= scores[c] == edge
            items[kept], scores[kept] = items[c], scores[c]
            kept += 1
    return kept, np.float32(np.float64(edge) - slack)


@helper
def _compact(
    items: Codes,
    scores: Floats,
    count: int,
    depth: int,
    slack: float,
    scratch: Floats,
    queries: Floats,
    row: int,
    vectors: Floats,
) -> tuple[int, np.float32]:
    kept, bound = _keep_products(items, scores, count, depth, slack, scratch)
    if kept > (scores.size + depth) // 2:  # near-ties in crowds: only exact scores part them
        kept, bound = _keep_exact(items, scores, kept, depth, slack, scratch, queries, row, vectors)
    return kept, bound


@kernel
def admit_tile(
    products: Floats,
    first_item: int,
    queries: Floats,
    vectors: Floats,
    depth: int,
    slack: Doubles,
    starts: Ints,
    stops: Ints,
    positives: Ints,
    cursors: Ints,
    bounds: Floats,
    counts: Ints,
    buffer_items: Codes,
    buffer_scores: Floats,
) -> None:
    """Take a tile's items that could be among a row's ``depth`` best non-positives.

    Args:
        products: float32 [B, T], the products with items ``first_item`` .. ``first_item + T - 1``.
        first_item: tiles come in ascending order.
        queries: float32 [B, d].
        vectors: float32 [N, d], all items.
        depth: ranks wanted, 1 or more.
        slack: float64 [B], the most that a product may be off.
        starts: int64 [B], where the row's positives start in ``positives``.
        stops: int64 [B], where they end.
        positives: int64, ascending and distinct within a row.
        cursors: int64 [B], the row's first positive that no tile has passed; moved on.
        bounds: float32 [B], products must lie above; -inf at first.
        counts: int64 [B], entries in the buffer; 0 at first.
        buffer_items: int32 [B, C], C > depth.
        buffer_scores: float32 [B, C].
    """
    rows, width = products.shape
    capacity = buffer_items.shape[1]
    scratch = np.empty(capacity, np.float32)
    above = np.empty(_GROUP, np.int64)
    for row in range(rows):
        bound, count, cursor, stop = bounds[row], counts[row], cursors[row], stops[row]
        line = products[row]
        items, scores = buffer_items[row], buffer_scores[row]
        for base in range(0, width, _GROUP):
            end = min(base + _GROUP, width)
            group = line[base:end]
            any_above = np.int32(0)
            for c in range(group.size):  # no branch inside: vector compares
                any_above += np.int32(group[c] > bound)
            if any_above == 0:
                continue
            hits = 0
            for c in range(group.size):  # no branch either: the coin is too fair to predict
                above[hits] = c
                hits += group[c] > bound
            for h in range(hits):
                c = base + above[h]
                if not line[c] > bound:  # tighter by now, maybe
                    continue
                item = first_item + c
                while cursor < stop and positives[cursor] < item:
                    cursor += 1
                if cursor < stop and positives[cursor] == item:
                    continue
                if count == capacity:
                    count, tighter = _compact(
                        items, scores, count, depth, slack[row], scratch, queries, row, vectors
                    )
                    bound = max(bound, tighter)
                    if not line[c] > bound:
                        continue
                items[count] = item
                scores[count] = line[c]
                count += 1
        bounds[row], counts[row], cursors[row] = bound, count, cursor


@kernel
def write_window(
    queries: Floats,
    vectors: Floats,
    depth: int,
    slack: Doubles,
    counts: Ints,
    buffer_items: Codes,
    buffer_scores: Floats,
    first_rank: int,
    window_items: Codes,
    window_scores: Floats,
) -> None:
    """Rescore what the buffers hold and write ranks ``first_rank`` .. ``depth``, best first.

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d].
        depth: the last rank.
        slack: as in ``admit_tile``.
        counts: int64 [B].
        buffer_items: int32 [B, C]; used up.
        buffer_scores: float32 [B, C]; used up.
        first_rank: from 1.
        window_items: int32 [B, depth - first_rank + 1]; -1 where there are fewer items.
        window_scores: float32, same shape; -inf where there are fewer items.
    """
    capacity = buffer_items.shape[1]
    scratch = np.empty(capacity, np.float32)
    keys = np.empty(capacity, np.uint64)
    everything, width = vectors.reshape(vectors.size), vectors.shape[1]
    for row in range(queries.shape[0]):
        items, scores, count = buffer_items[row], buffer_scores[row], counts[row]
        if count > depth:
            count, _ = _keep_products(items, scores, count, depth, slack[row], scratch)
        for c in range(count):  # vectors lie far apart: each is asked for before it is needed
            if c + _AHEAD < count:
                place = np.int64(items[c + _AHEAD]) * width
                for d in range(0, width, 16):
                    prefetch(everything, place + d)
            scores[c] = exact_score(queries, row, vectors, items[c])
        _write_sorted(items, scores, count, keys, first_rank, window_items[row], window_scores[row])


@helper
def _write_sorted(
    items: Codes,
    scores: Floats,
    count: int,
    keys: npt.NDArray[np.uint64],
    first_rank: int,
    window_items: Codes,
    window_scores: Floats,
) -> None:
    bits = scores.view(np.uint32)
    for c in range(count):
        keys[c] = sort_key(bits[c], items[c])
    part = keys[:count]
    part.sort()
    out_bits = window_scores.view(np.uint32)
    for column in range(window_items.size):
        place = count - first_rank - column
        if place >= 0:
            ordered = np.uint32(part[place] >> _S32)
            out_bits[column] = ordered ^ _SIGN if ordered & _SIGN else ~ordered
            window_items[column] = key_item(part[place])
        else:
            window_items[column] = -1
            window_scores[column] = -np.inf


@kernel
def rank_found(
    found: Ints,
    queries: Floats,
    vectors: Floats,
    starts: Ints,
    stops: Ints,
    positives: Ints,
    first_rank: int,
    window_items: Codes,
    window_scores: Floats,
) -> None:
    """Rescore what some index found, drop positives and repeats, write the window's ranks.

    Args:
        found: int64 [B, K], item ids in any order, -1 for none.
        queries: float32 [B, d].
        vectors: float32 [N, d].
        starts: int64 [B], where the row's positives start.
        stops: int64 [B], where they end.
        positives: int64, ascending within a row.
        first_rank: from 1.
        window_items: int32 [B, W]; -1 where there are fewer items.
        window_scores: float32 [B, W]; -inf where there are fewer items.
    """
    rows, width = found.shape
    items = np.empty(width, np.int32)
    scores = np.empty(width, np.float32)
    keys = np.empty(width, np.uint64)
    for row in range(rows):
        ids = np.sort(found[row])
        count = 0
        for c in range(width):
            item = ids[c]
            if item < 0 or (c > 0 and ids[c - 1] == item):
                continue
            if contains(positives, starts[row], stops[row], item):
                continue
            items[count] = item
            scores[count] = exact_score(queries, row, vectors, item)
            count += 1
        _write_sorted(items, scores, count, keys, first_rank, window_items[row], window_scores[row])


@kernel
def lowest_positive(
    queries: Floats, vectors: Floats, starts: Ints, stops: Ints, positives: Ints, lowest: Doubles
) -> None:
    """float64 [B]: each row's lowest score of a positive; +inf where the row has none."""
    for row in range(queries.shape[0]):
        best = np.inf
        for p in range(starts[row], stops[row]):
            best = min(best, np.float64(exact_score(queries, row, vectors, positives[p])))
        lowest[row] = best
