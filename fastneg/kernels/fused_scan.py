"""Exact search without a matrix of scores: products of tiles, compared while they are in cache.

Vectors are rounded to bfloat16 and packed for the tile instructions (``amx.py``). A block of 32
queries by 32 items is multiplied, and only what could be among a query's best goes to its buffer;
the scores themselves are never written to memory. What the rounding can cost is bounded, query by
query and stretch by stretch of items, by lengths of residuals, so that nothing is ever lost.

Legend: K dimensions, a multiple of 32; a panel is 16 items; a stretch is 1,024 items.

Why nothing is lost: a sum of K float32 products that starts at a bound of the same magnitude is off
by (K + 16) 2^-23 |q'||x'| at most, rounding of the results included; ``bounds.py`` has the rest. A
row's ``edge`` is a score that at least ``depth`` items are known to have (or that the caller asks
for); an item is left out only if its product plus that bound lies below the edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels import bounds as bounds_of
from fastneg.kernels.amx import begin_tiles, copy_row, end_tiles, multiply, plain, reached
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import prefetch, trailing_zeros
from fastneg.kernels.ranking_words import rank_words
from fastneg.kernels.rescore import exact_scores
from fastneg.kernels.selection import contains, exact_score, key_item, kth_largest, sort_key

GROUP = 32  # queries of a block, and items
STRETCH = 1_024
_PAIRS = STRETCH // GROUP
_BLOCKS = 4  # of items, multiplied before the first of them is looked at
_WAITING = 3 * GROUP * _BLOCKS  # rows of a block with something in them, before they are looked at
_TINY = np.uint32(0x00800000)  # the smallest normal float32
_LARGEST = np.uint32(0x7F7F)  # the largest finite bfloat16
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@helper
def round_bits(bits: np.uint32) -> np.uint32:
    """The bits of the nearest bfloat16, ties to even; what is not normal becomes 0."""
    size = bits & np.uint32(0x7FFFFFFF)
    if size < _TINY:
        return np.uint32(0)
    rounded = (size + np.uint32(0x7FFF) + ((size >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return min(rounded, _LARGEST) | ((bits >> np.uint32(31)) << np.uint32(15))


@kernel
def pack_queries(bits: Any, packed: Any, widened: Any, norms: Any, residuals: Any) -> None:
    """Round rows to bfloat16.

    Args:
        bits: uint32 [B, d], the bits of float32 vectors.
        packed: uint16 [B, K], written; 0 beyond d.
        widened: uint32 [1], scratch.
        norms: float64 [B], written: lengths of the rounded vectors.
        residuals: float64 [B], written: lengths of what rounding took.
    """
    value = widened.view(np.float32)
    width = bits.shape[1]
    for b in range(bits.shape[0]):
        total = off = 0.0
        for c in range(width):
            rounded = round_bits(bits[b, c])
            packed[b, c] = rounded
            widened[0] = bits[b, c]
            exact = np.float64(value[0])
            widened[0] = rounded << np.uint32(16)
            total += np.float64(value[0]) ** 2
            off += (exact - np.float64(value[0])) ** 2
        for c in range(width, packed.shape[1]):
            packed[b, c] = 0
        norms[b] = np.sqrt(total)
        residuals[b] = np.sqrt(off)


@kernel
def pack_items(
    bits: Any, order: Any, first_panel: int, steps: int, widened: Any, panels: Any, norms: Any,
    residuals: Any,
) -> None:  # fmt: skip
    """Round items to bfloat16, in panels of 16: [steps, 16, 16, 2], neighbouring dimensions last.

    Args:
        bits: uint32 [N, d], the bits of float32 vectors.
        order: int32 [16 P]: which item stands where; -1 for none.
        first_panel: the panel that ``norms[0]`` belongs to.
        steps: K / 32.
        widened: uint32 [1], scratch.
        panels: uint16 [512 steps P], written for the panels of this call.
        norms, residuals: float64 [panels of this call], written: the largest length of an item,
            and of what rounding took from one.
    """
    value = widened.view(np.float32)
    width = bits.shape[1]
    for p in range(norms.shape[0]):
        longest = worst = 0.0
        base = (first_panel + p) * 512 * steps
        for j in range(16):
            item = np.int64(order[(first_panel + p) * 16 + j])
            total = off = 0.0
            for c in range(32 * steps):
                rounded = np.uint32(0)
                if item >= 0 and c < width:
                    rounded = round_bits(bits[item, c])
                    widened[0] = bits[item, c]
                    exact = np.float64(value[0])
                    widened[0] = rounded << np.uint32(16)
                    total += exact**2
                    off += (exact - np.float64(value[0])) ** 2
                panels[base + (c >> 5) * 512 + ((c & 31) >> 1) * 32 + 2 * j + (c & 1)] = rounded
            longest, worst = max(longest, total), max(worst, off)
        norms[p] = np.sqrt(longest)
        residuals[p] = np.sqrt(worst)


@helper
def product_error(
    row_norm: float, row_residual: float, norm: float, residual: float, longest: float, steps: int
) -> float:
    """``bounds.product_error`` by tiles; sums start at a bound of the magnitude |q'| longest."""
    width = 32.0 * steps
    relative = (width + 16.0) * 2.0**-23
    return bounds_of.product_error(row_norm, row_residual, norm, residual, longest, relative, width)


@kernel
def largest_errors(
    row_norms: Any, row_residuals: Any, norm: float, residual: float, steps: int, out: Any
) -> None:
    """out[b] = ``product_error`` with the longest item and the largest residual; float64 [B]."""
    for b in range(out.shape[0]):
        out[b] = product_error(row_norms[b], row_residuals[b], norm, residual, norm, steps)


@helper
def start_row(start: Any, r: int, bound: Any) -> None:
    for c in range(16):
        start[r * 16 + c] = -bound


@helper
def _begin_stretch(
    edges: Any, row_norms: Any, row_residuals: Any, norm: float, residual: float, longest: float,
    steps: int, errors: Any, bounds: Any, start: Any,
) -> bool:  # fmt: skip
    """Errors and bounds of the rows for a stretch of items; False if nothing there can matter."""
    wanted = False
    for r in range(errors.shape[0]):
        off = product_error(row_norms[r], row_residuals[r], norm, residual, longest, steps)
        reach = (row_norms[r] + row_residuals[r]) * (norm + residual) * 1.001 + bounds_of.SMALLEST
        wanted |= not reach < np.float64(edges[r])
        # no product lies below what the lengths allow
        lowest = -1.001 * row_norms[r] * longest - off
        errors[r] = off
        bounds[r] = np.float32(max(np.float64(edges[r]) - off, lowest))
        start_row(start, r, bounds[r])
    return wanted


@helper
def _keep_likely(
    items: Any, scores: Any, count: int, depth: int, slack: float, scratch: Any
) -> Any:
    """Drop what cannot be among the ``depth`` best, judged by products: (count, new edge)."""
    scratch[:count] = scores[:count]
    middle = np.float64(kth_largest(scratch, count, depth))
    bound = np.float32(middle - 2.0 * slack)
    kept = 0
    for c in range(count):
        score = scores[c]
        items[kept], scores[kept] = items[c], score
        kept += score >= bound
    return kept, np.float32(middle - slack)


@helper
def _keep_best(
    items: Any, scores: Any, count: int, depth: int, queries: Any, row: int, vectors: Any
) -> Any:
    """Keep exactly the ``depth`` best by exact scores, ties to the lower id: (count, new edge).

    The scores kept are exact ones from here on; they are products without error.
    """
    keys = np.empty(count, np.uint64)
    bits = scores.view(np.uint32)
    for c in range(count):
        scores[c] = exact_score(queries, row, vectors, items[c])
        keys[c] = sort_key(bits[c], items[c])
    keys.sort()
    for c in range(depth):
        item: Any = key_item(keys[count - 1 - c])
        items[c] = item
        scores[c] = exact_score(queries, row, vectors, item)
    return depth, scores[depth - 1]


@helper
def _compact(
    items: Any, scores: Any, count: int, depth: int, slack: float, scratch: Any, queries: Any,
    row: int, vectors: Any,
) -> Any:  # fmt: skip
    kept, edge = _keep_likely(items, scores, count, depth, slack, scratch)
    if kept > (scores.shape[0] + depth) // 2:  # near-ties in crowds: only exact scores part them
        kept, edge = _keep_best(items, scores, kept, depth, queries, row, vectors)
    return kept, edge


@helper
def _take(
    waiting: int, masks: Any, of_row: Any, of_pair: Any, lines: Any, ids: Any, bounds: Any,
    errors: Any, edges: Any, depth: int, slack: Any, queries: Any, vectors: Any, starts: Any,
    stops: Any, positives: Any, counts: Any, buffer_items: Any, buffer_scores: Any, scratch: Any,
) -> None:  # fmt: skip
    """Put what waits into the buffers of its rows."""
    capacity = buffer_items.shape[1]
    for k in range(waiting):
        r, mask = of_row[k], masks[k]
        low, high = starts[r], stops[r]
        while mask != _ZERO:
            c = trailing_zeros(mask)
            mask &= mask - _ONE
            item = ids[of_pair[k] * GROUP + c]
            if item < 0 or (low < high and contains(positives, low, high, item)):
                continue
            score = lines[k * GROUP + c] + bounds[r]
            if counts[r] == capacity:
                counts[r], edge = _compact(
                    buffer_items[r], buffer_scores[r], capacity, depth, slack[r], scratch, queries,
                    r, vectors,
                )  # fmt: skip
                edges[r] = max(edges[r], edge)  # holds from the next stretch on
            if np.float64(score) + errors[r] < np.float64(edges[r]):
                continue
            buffer_items[r, counts[r]] = item
            buffer_scores[r, counts[r]] = score
            counts[r] += 1


@kernel
def scan_panels(
    shapes: Any,
    packed: Any,
    steps: int,
    panels: Any,
    ids: Any,
    norms: Any,
    residuals: Any,
    row_norms: Any,
    row_residuals: Any,
    slack: Any,
    depth: int,
    queries: Any,
    vectors: Any,
    starts: Any,
    stops: Any,
    positives: Any,
    edges: Any,
    counts: Any,
    buffer_items: Any,
    buffer_scores: Any,
    bounds: Any,
    start: Any,
    products: Any,
) -> None:
    """Take what could be among a row's ``depth`` best non-positives from all stretches of items.

    Args:
        shapes: uint8 [64], of ``amx.tile_shapes``.
        packed: uint16 [K R], R = B rounded up to 32, of ``pack_queries``.
        steps: K / 32.
        panels: uint16 [K N'], of ``pack_items``; N' a multiple of 1,024.
        ids: int32 [N'], the item of each place; -1 for none.
        norms, residuals: float64 [N' / 1024], of ``pack_items``, the largest of each stretch.
        row_norms, row_residuals: float64 [B], of ``pack_queries``.
        slack: float64 [B], the most that a product may be off, over all items.
        depth: ranks wanted, 1 or more.
        queries: float32 [B, d]; vectors: float32 [N, d].
        starts, stops, positives: the rows' positives, ascending.
        edges: float32 [B], what a score must reach to matter; -inf at first, or a guess that the
            caller looks at afterwards. Raised as ``depth`` items are found.
        counts: int64 [B], entries in the buffer; 0 at first.
        buffer_items: int32 [B, C], C > depth; buffer_scores: float32 [B, C], products.
        bounds: float32 [B]; start: float32 [16 R]; products: float32 [4,096]; scratch.
    """
    num_rows = starts.shape[0]
    padded = start.shape[0] // 16
    capacity = buffer_items.shape[1]
    scratch = np.empty(capacity, np.float32)
    errors = np.empty(num_rows)
    masks, lines = np.empty(_WAITING, np.uint64), np.empty(_WAITING * GROUP, np.float32)
    of_row, of_pair = np.empty(_WAITING, np.int64), np.empty(_WAITING, np.int64)
    places = ids.shape[0] - 1
    fours = np.empty(_BLOCKS, np.uint64)
    longest = norms.max()
    begin_tiles(shapes)
    size = steps * 1024  # entries of 32 items, and of 32 queries
    last = panels.shape[0] - 1
    ahead = -(-size * _BLOCKS // padded)  # cache lines (of 32 entries) for each block of rows
    for r in range(num_rows, padded):
        start_row(start, r, np.float32(np.inf))
    for s in range(norms.shape[0]):
        wanted = _begin_stretch(
            edges, row_norms, row_residuals, norms[s], residuals[s], longest, steps, errors, bounds,
            start,
        )  # fmt: skip
        if not wanted:  # not even along the same line
            continue
        waiting: Any = 0
        # four blocks of items for each block of queries: both stay in the nearest cache
        for pair in range(s * _PAIRS, (s + 1) * _PAIRS, _BLOCKS):
            following = (pair + _BLOCKS) * size
            for line in range(2 * _BLOCKS):
                prefetch(ids, min((pair + _BLOCKS) * GROUP + 16 * line, places))
            for g in range(0, padded, GROUP):
                for k in range(_BLOCKS):
                    own = products[k * GROUP * GROUP : (k + 1) * GROUP * GROUP]
                    multiply(
                        packed, g * steps * 32, panels, (pair + k) * size, steps, start, g, own
                    )
                    fours[k] = reached(own)
                for line in range(ahead):  # the next items come from far away
                    prefetch(panels, min(following + g * ahead + line * GROUP, last))
                for k in range(_BLOCKS):
                    left = fours[k]
                    while left != _ZERO:
                        first = k * GROUP + 4 * trailing_zeros(left)
                        left &= left - _ONE
                        for j in range(first, first + 4):  # no branch: most rows have nothing
                            mask = plain(products, j)
                            masks[waiting], of_pair[waiting] = mask, pair + k
                            of_row[waiting] = g + j - k * GROUP
                            copy_row(products, j, lines, waiting)
                            waiting += mask != _ZERO
                if waiting > _WAITING - GROUP * _BLOCKS:
                    _take(
                        waiting, masks, of_row, of_pair, lines, ids, bounds, errors, edges, depth,
                        slack, queries, vectors, starts, stops, positives, counts, buffer_items,
                        buffer_scores, scratch,
                    )  # fmt: skip
                    waiting = 0
        _take(
            waiting, masks, of_row, of_pair, lines, ids, bounds, errors, edges, depth, slack,
            queries, vectors, starts, stops, positives, counts, buffer_items, buffer_scores,
            scratch,
        )  # fmt: skip
    end_tiles()


@kernel
def write_best(
    queries: Any,
    vectors: Any,
    depth: int,
    slack: Any,
    counts: Any,
    buffer_items: Any,
    buffer_scores: Any,
    first_rank: int,
    window_items: Any,
    window_scores: Any,
) -> None:
    """As ``selection.write_window``, from the buffers of ``scan_panels``."""
    capacity = buffer_items.shape[1]
    scratch, spare = np.empty(capacity, np.float32), np.empty(capacity, np.int32)
    bins = np.empty(4 * 256, np.int32)
    wide = np.empty(queries.shape[1])
    everything = vectors.reshape(vectors.size)
    for row in range(queries.shape[0]):
        items, scores, count = buffer_items[row], buffer_scores[row], counts[row]
        if count > depth:
            count, _ = _keep_likely(items, scores, count, depth, slack[row], scratch)
        exact_scores(queries[row], everything, items, count, wide, scores)
        rank_words(scores.view(np.uint32), items, count, scratch.view(np.uint32), spare, bins)
        for column in range(window_items.shape[1]):
            place = first_rank - 1 + column
            if place < count:
                window_items[row, column] = items[place]
                window_scores[row, column] = scores[place]
            else:
                window_items[row, column] = -1
                window_scores[row, column] = -np.inf
