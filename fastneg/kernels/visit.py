"""Lists of items, each visited once with all the queries that ask for it.

Every query has a buffer and a bound. A visit multiplies a list's panels with the queries eight at
a time and takes what reaches their bounds; a full buffer is cut back to what may still be among
the ``depth`` best. Items come in any order, so an item that equals the bound is taken: its id may
be the lower one. Positives are taken too and dropped at a cut: few rows of a buffer are positives,
and a test for each product that is taken would cost more than all else.

Why nothing is lost: as in ``selection``. If a is the depth-th best product among a buffer's
non-positives, depth of them have scores of a - slack or more, and an item below a - 2 slack has a
lower score than all of them. After an exact cut the bound is the depth-th best score - slack.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.edges import edges_around
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import wide_vectors
from fastneg.kernels.panels import LANES, TILE, multiply_tile, take
from fastneg.kernels.ranking_words import rank_words
from fastneg.kernels.rescore import exact_scores
from fastneg.kernels.selection import contains, exact_score, kth_largest

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_PANELS = 32  # of one step: their products with a tile stay in the nearest cache
FILTER_WORDS = 64  # words of the filter of a query's positives
_SIX = np.uint64(6)
_ONE = np.uint64(1)


@helper
def _spot(item: int) -> np.uint64:
    """A place in the filter's 4,096 bits."""
    return ((np.uint64(item) * np.uint64(0x9E3779B1)) >> np.uint64(20)) & np.uint64(4095)


@helper
def drop_positives(
    codes: Codes, scores: Floats, count: int, start: int, stop: int, positives: Ints, seen: Words,
    spare: Codes,
) -> int:  # fmt: skip
    """Take the positives out of a buffer; returns how many entries stay."""
    if start == stop:
        return count
    seen[:] = 0
    for p in range(start, stop):
        spot = _spot(positives[p])
        seen[spot >> _SIX] |= _ONE << (spot & np.uint64(63))
    suspects = np.int64(0)
    for c in range(count):  # no branch: the filter sorts nearly all of them out
        spot = _spot(codes[c])
        spare[suspects] = c
        suspects += np.int64((seen[spot >> _SIX] >> (spot & np.uint64(63))) & _ONE)
    for s in range(suspects - 1, -1, -1):  # the last entry, which is none, takes its place
        c = spare[s]
        if contains(positives, start, stop, codes[c]):
            count -= 1
            codes[c], scores[c] = codes[count], scores[count]
    return count


@helper
def _keep_above(codes: Codes, scores: Floats, count: int, bound: np.float32) -> int:
    """Drop what is below ``bound``."""
    kept = 0
    for c in range(0, count, LANES):
        kept += take(scores, c, count - c, bound, codes, c, codes, scores, kept)
    return kept


@helper
def _keep_best(
    codes: Codes, scores: Floats, count: int, depth: int, scratch: Floats, spare: Codes
) -> tuple[int, np.float32]:
    """Keep exactly the ``depth`` best of exact scores, ties to the lower id."""
    scratch[:count] = scores[:count]
    edge = kth_largest(scratch, count, depth)
    above = ties = 0
    for c in range(count):
        above += scores[c] > edge
        if scores[c] == edge:
            spare[ties] = codes[c]
            ties += 1
    tied = spare[:ties]
    tied.sort()
    last = tied[depth - above - 1]
    kept = 0
    for c in range(count):
        if scores[c] > edge or (scores[c] == edge and codes[c] <= last):
            codes[kept], scores[kept] = codes[c], scores[c]
            kept += 1
    return kept, edge


@helper
def cut_buffer(
    codes: Codes,
    scores: Floats,
    count: int,
    depth: int,
    slack: float,
    scratch: Floats,
    spare: Codes,
    queries: Floats,
    row: int,
    vectors: Floats,
) -> tuple[int, np.float32]:
    """Cut a buffer without positives back; returns (count, bound)."""
    if count <= depth:
        return count, np.float32(-np.inf)
    most = (scores.size + depth) // 2
    edge, _ = edges_around(scores, count, depth, 1, depth // 16)
    bound = np.float32(np.float64(edge) - 2.0 * slack)
    count = _keep_above(codes, scores, count, bound)
    if count > most:  # a few scores far above the others: halved too seldom
        scratch[:count] = scores[:count]
        edge = kth_largest(scratch, count, depth)
        bound = np.float32(np.float64(edge) - 2.0 * slack)
        count = _keep_above(codes, scores, count, bound)
    if count > most:  # near-ties in crowds: only exact scores part them
        for c in range(count):
            scores[c] = exact_score(queries, row, vectors, codes[c])
        count, edge = _keep_best(codes, scores, count, depth, scratch, spare)
        bound = np.float32(np.float64(edge) - slack)
    return count, bound


@kernel
def visit_lists(
    pair_starts: Ints,
    pair_rows: Codes,
    queries: Floats,
    panels: Floats,
    panel_borders: Ints,
    borders: Ints,
    order: Codes,
    vectors: Floats,
    depth: int,
    slack: Doubles,
    starts: Ints,
    stops: Ints,
    positives: Ints,
    bounds: Floats,
    counts: Ints,
    buffer_codes: Codes,
    buffer_scores: Floats,
) -> None:
    """Take from each list what could be among the ``depth`` best non-positives of its queries.

    Args:
        pair_starts: int64 [L + 1], where the lists' queries start in ``pair_rows``.
        pair_rows: int32, rows of ``queries``, list by list.
        queries: float32 [B, d].
        panels: float32 [P * d * LANES], see ``pack_panels``.
        panel_borders: int64 [L + 1].
        borders: int64 [L + 1], where the lists start in ``order``.
        order: int32 [N + LANES], items list by list.
        vectors: float32 [N, d], all items by id.
        depth: ranks wanted, 1 or more.
        slack: float64 [B], the most that a product may be off.
        starts: int64 [B], where the row's positives start in ``positives``.
        stops: int64 [B], where they end.
        positives: int64, ascending and distinct within a row.
        bounds: float32 [B], products must reach it; -inf at first.
        counts: int64 [B], entries in the buffer; 0 at first.
        buffer_codes: int32 [B, C], C >= depth + 128; LANES entries at the end stay unused.
        buffer_scores: float32 [B, C].
    """
    wide_vectors()
    width = queries.shape[1]
    capacity = buffer_codes.shape[1]
    stride = _PANELS * LANES
    tile = np.zeros(TILE * width, np.float32)
    lines = np.empty(TILE * stride, np.float32)
    scratch = np.empty(capacity, np.float32)
    spare = np.empty(capacity, np.int32)
    seen = np.empty(FILTER_WORDS, np.uint64)
    for one in range(pair_starts.size - 1):
        if borders[one] == borders[one + 1]:
            continue
        for group in range(pair_starts[one], pair_starts[one + 1], TILE):
            members = min(TILE, pair_starts[one + 1] - group)
            for i in range(members):
                query = queries[pair_rows[group + i]]
                for k in range(width):  # assigning a slice costs ten times as much
                    tile[i * width + k] = query[k]
            for panel in range(panel_borders[one], panel_borders[one + 1], _PANELS):
                count = min(_PANELS, panel_borders[one + 1] - panel)
                multiply_tile(tile, width, panels, panel, count, lines, stride)
                first = borders[one] + (panel - panel_borders[one]) * LANES
                size = min(borders[one + 1] - first, stride)
                for i in range(members):
                    row = pair_rows[group + i]
                    codes, scores = buffer_codes[row], buffer_scores[row]
                    held, bound = counts[row], bounds[row]
                    base = i * stride
                    for c in range(0, size, LANES):
                        if held > capacity - 2 * LANES:
                            held = drop_positives(
                                codes, scores, held, starts[row], stops[row], positives, seen, spare
                            )
                            held, tighter = cut_buffer(
                                codes, scores, held, depth, slack[row], scratch, spare, queries,
                                row, vectors,
                            )  # fmt: skip
                            bound = max(bound, tighter)
                        held += take(
                            lines, base + c, size - c, bound, order, first + c, codes, scores, held
                        )
                    counts[row], bounds[row] = held, bound


@helper
def _drop_below_and_above(
    codes: Codes,
    scores: Floats,
    count: int,
    first_rank: int,
    depth: int,
    slack: float,
) -> tuple[int, int]:
    """Drop what is surely beyond the ranks wanted, at either end; returns (count, dropped above).

    What at most first_rank - 1 products reach is an edge; a product of the edge + 2 slack or more
    is outranked only by those, so its rank is below first_rank and all that are asked come later.
    """
    if count == 0 or (count <= depth and first_rank == 1):
        return count, 0
    high = np.float32(np.inf)
    if 1 < first_rank <= count:
        _, edge = edges_around(scores, count, first_rank - 1, -1, first_rank // 16)
        high = np.float32(np.float64(edge) + 2.0 * slack)
    if count > depth:
        edge, _ = edges_around(scores, count, depth, 1, depth // 16)
        count = _keep_above(codes, scores, count, np.float32(np.float64(edge) - 2.0 * slack))
    kept = 0
    for c in range(count):
        score = scores[c]
        codes[kept], scores[kept] = codes[c], score
        kept += score < high
    return kept, count - kept


@kernel
def write_ranks(
    queries: Floats,
    vectors: Floats,
    depth: int,
    slack: Doubles,
    starts: Ints,
    stops: Ints,
    positives: Ints,
    counts: Ints,
    buffer_codes: Codes,
    buffer_scores: Floats,
    first_rank: int,
    places: Ints,
    window_codes: Codes,
    window_scores: Floats,
) -> None:
    """Score again what the buffers hold and write ranks ``first_rank`` .. ``depth``, best first.

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d].
        depth: the last rank.
        slack: as in ``visit_lists``; so are the positives' arrays.
        starts: int64 [B].
        stops: int64 [B].
        positives: int64.
        counts: int64 [B].
        buffer_codes: int32 [B, C]; used up.
        buffer_scores: float32 [B, C]; used up.
        first_rank: from 1.
        places: int64 [B], the windows' rows, one for each row.
        window_codes: int32 [Q, depth - first_rank + 1]; -1 where there are fewer items.
        window_scores: float32, same shape; -inf where there are fewer items.
    """
    wide_vectors()
    capacity = buffer_codes.shape[1]
    wide = np.empty(queries.shape[1], np.float64)
    flat = vectors.reshape(vectors.size)
    scratch = np.empty(capacity, np.float32)
    spare = np.empty(capacity, np.int32)
    seen = np.empty(FILTER_WORDS, np.uint64)
    bins = np.empty(4 * 256, np.int32)
    for row in range(queries.shape[0]):
        codes, scores = buffer_codes[row], buffer_scores[row]
        count = drop_positives(
            codes, scores, counts[row], starts[row], stops[row], positives, seen, spare
        )
        count, above = _drop_below_and_above(codes, scores, count, first_rank, depth, slack[row])
        exact_scores(queries[row], flat, codes, count, wide, scores)
        words = scores.view(np.uint32)
        rank_words(words, codes, count, scratch.view(np.uint32), spare, bins)
        line, window = window_codes[places[row]], window_scores[places[row]]
        for column in range(line.size):
            place = first_rank - 1 - above + column
            inside = place < count
            line[column] = codes[place] if inside else -1
            window[column] = scores[place] if inside else -np.inf


@kernel
def pair_by_list(lists: Codes, pair_starts: Ints, pair_rows: Codes) -> None:
    """The rows that ask for each list, ascending; counting sort.

    Args:
        lists: int32 [B, n], the lists that each row asks for.
        pair_starts: int64 [L + 1], where each list's rows start in ``pair_rows``.
        pair_rows: int32 [B * n].
    """
    rows, each = lists.shape
    pair_starts[:] = 0
    for row in range(rows):
        for c in range(each):
            pair_starts[lists[row, c] + 1] += 1
    for one in range(1, pair_starts.size):
        pair_starts[one] += pair_starts[one - 1]
    for row in range(rows):
        for c in range(each):
            place = pair_starts[lists[row, c]]
            pair_rows[place] = row
            pair_starts[lists[row, c]] = place + 1
    for one in range(pair_starts.size - 1, 0, -1):
        pair_starts[one] = pair_starts[one - 1]
    pair_starts[0] = 0
