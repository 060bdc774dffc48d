"""The visits of ``visit.py`` by matrix tiles: 32 queries of a list meet 32 of its items at a time.

Vectors are rounded to bfloat16 as in ``fused_scan``, and the same bound of what that costs, for a
query and a list, says what may be left out. A row's ``edge`` is a score: an item is left out only
if its product plus the bound lies below it. Buffers and their cuts are those of ``visit``, and so
are the windows, bit for bit.

Legend: K dimensions, a multiple of 32; L lists; each list has places for a multiple of 32 items.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.amx import begin_tiles, copy_step, end_tiles, multiply
from fastneg.kernels.fused_scan import GROUP, product_error
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import prefetch, wide_vectors
from fastneg.kernels.panels import LANES, take
from fastneg.kernels.visit import FILTER_WORDS, cut_buffer, drop_positives

_BLOCKS = 4  # of items, multiplied before a row takes from them
ROOM = 512  # queries of a list that are multiplied together: more come in turns
_SPAN = GROUP * _BLOCKS


@helper
def _gather(
    pair_rows: Any, first: int, members: int, packed: Any, width: int, row_norms: Any,
    row_residuals: Any, norm: float, residual: float, longest: float, edges: Any, errors: Any,
    bounds: Any, gathered: Any,
) -> None:  # fmt: skip
    """The queries of a list, one after the other, and what their products must reach there."""
    for i in range(members):
        row = pair_rows[first + i]
        errors[i] = product_error(
            row_norms[row], row_residuals[row], norm, residual, longest, width // GROUP
        )
        bounds[i] = np.float32(np.float64(edges[row]) - errors[i])
        for c in range(0, width, GROUP):
            copy_step(packed, row * width + c, gathered, i * width + c)


@helper
def _cut_row(
    row: int, held: int, starts: Any, stops: Any, positives: Any, buffer_codes: Any,
    buffer_scores: Any, depth: int, slack: Any, scratch: Any, spare: Any, seen: Any, queries: Any,
    vectors: Any, edges: Any,
) -> int:  # fmt: skip
    """Make room in a row's buffer and raise its edge; returns how many entries stay."""
    codes, scores = buffer_codes[row], buffer_scores[row]
    held = drop_positives(codes, scores, held, starts[row], stops[row], positives, seen, spare)
    held, bound = cut_buffer(
        codes, scores, held, depth, slack[row], scratch, spare, queries, row, vectors
    )
    edges[row] = max(edges[row], np.float32(np.float64(bound) + slack[row]))
    return held


@helper
def _next_asked(pair_starts: Any, one: Any) -> Any:
    """The next list that a query asks for; the last one if none does."""
    last = pair_starts.shape[0] - 2
    after = min(one + 1, last)
    while after < last and pair_starts[after] == pair_starts[after + 1]:
        after += 1
    return after


@kernel
def visit_by_tiles(
    shapes: Any,
    pair_starts: Any,
    pair_rows: Any,
    packed: Any,
    steps: int,
    panels: Any,
    borders: Any,
    sizes: Any,
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
    buffer_codes: Any,
    buffer_scores: Any,
    gathered: Any,
    products: Any,
    start: Any,
) -> None:
    """Take from each list what could be among the ``depth`` best non-positives of its queries.

    Args:
        shapes: uint8 [64], of ``amx.tile_shapes``.
        pair_starts: int64 [L + 1], where the lists' queries start in ``pair_rows``.
        pair_rows: int32, rows of ``queries``, list by list.
        packed: uint16 [B K], of ``pack_queries``.
        steps: K / 32.
        panels: uint16 [K N'], of ``pack_items``.
        borders: int64 [L + 1], the lists' first places, multiples of 32.
        sizes: int64 [L], items of each list, in its first places.
        ids: int32 [N' + 16], the item of each place.
        norms, residuals: float64 [L], of ``pack_items``, the largest of each list.
        row_norms, row_residuals: float64 [B], of ``pack_queries``.
        slack: float64 [B], the most that a product may be off, over all items.
        depth: ranks wanted, 1 or more.
        queries: float32 [B, d]; vectors: float32 [N, d].
        starts, stops: int64 [B]; positives: int64, ascending and distinct within a row.
        edges: float32 [B], what a score must reach to matter; -inf at first, raised as ``depth``
            items are found.
        counts: int64 [B], entries in the buffer; 0 at first.
        buffer_codes: int32 [B, C], C >= depth + 256; 16 entries at the end stay unused.
        buffer_scores: float32 [B, C], products.
        gathered: uint16 [512 K], products: float32 [4096]; scratch.
        start: float32 [512], zeros.
    """
    wide_vectors()
    capacity = buffer_codes.shape[1]
    flat_codes = buffer_codes.reshape(buffer_codes.size)
    flat_scores = buffer_scores.reshape(buffer_scores.size)
    width = 32 * steps
    errors, bounds = np.empty(ROOM), np.empty(ROOM, np.float32)
    scratch, spare = np.empty(capacity, np.float32), np.empty(capacity, np.int32)
    seen = np.empty(FILTER_WORDS, np.uint64)
    longest = norms.max()
    num_lists = sizes.shape[0]
    begin_tiles(shapes)
    for one in range(num_lists):
        if sizes[one] == 0 or pair_starts[one] == pair_starts[one + 1]:
            continue
        stop = borders[one] + sizes[one]
        after = _next_asked(pair_starts, one)
        for group in range(pair_starts[one], pair_starts[one + 1], ROOM):
            members = min(ROOM, pair_starts[one + 1] - group)
            turns = (members + GROUP - 1) // GROUP
            _gather(
                pair_rows, group, members, packed, width, row_norms, row_residuals, norms[one],
                residuals[one], longest, edges, errors, bounds, gathered,
            )  # fmt: skip
            for i in range(members):
                tail = pair_rows[group + i] * capacity + counts[pair_rows[group + i]]
                prefetch(flat_codes, tail)
                prefetch(flat_scores, tail)
            share = (_SPAN * width // GROUP + turns - 1) // turns
            for first in range(borders[one], borders[one + 1], _SPAN):
                blocks = min(_BLOCKS, (borders[one + 1] - first) // GROUP)
                following, end = (first + _SPAN) * width, borders[one + 1] * width
                if following >= end:  # the next list that is asked for
                    following, end = borders[after] * width, borders[after + 1] * width
                end = min(end, following + _SPAN * width)
                for g in range(0, members, GROUP):
                    for k in range(blocks):
                        multiply(
                            gathered, g * width, panels, (first + k * GROUP) * width, steps, start,
                            0, products[k * GROUP * GROUP : (k + 1) * GROUP * GROUP],
                        )  # fmt: skip
                    for _ in range(share):  # the next items come from far away
                        if following < end:
                            prefetch(panels, following)
                            following += GROUP
                    for i in range(min(GROUP, members - g)):
                        row = pair_rows[group + g + i]
                        held = counts[row]
                        if held > capacity - _SPAN - LANES:
                            held = _cut_row(
                                row, held, starts, stops, positives, buffer_codes, buffer_scores,
                                depth, slack, scratch, spare, seen, queries, vectors, edges,
                            )  # fmt: skip
                            bounds[g + i] = np.float32(np.float64(edges[row]) - errors[g + i])
                        base = row * capacity
                        at = base + held
                        bound = bounds[g + i]
                        place, line = first, i * GROUP
                        for _ in range(blocks):
                            at += take(
                                products, line, stop - place, bound, ids, place, flat_codes,
                                flat_scores, at,
                            )  # fmt: skip
                            at += take(
                                products, line + LANES, stop - place - LANES, bound, ids,
                                place + LANES, flat_codes, flat_scores, at,
                            )  # fmt: skip
                            place += GROUP
                            line += GROUP * GROUP
                        counts[row] = at - base
    end_tiles()
