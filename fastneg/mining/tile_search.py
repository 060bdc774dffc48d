"""Exact search by the processor's matrix tiles: no matrix of scores is ever written.

A sample of the items says, query by query, which score the window's last rank will hardly lie
below; only items at that score or above go to a query's buffer, and what is in the buffers is
scored again exactly. A query whose sample misled it is searched again without one. Results are
those of ``exact.py``, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, frozen
from fastneg.kernels.fused_scan import scan_panels, write_best
from fastneg.mining.packed import (
    GROUP,
    STRETCH,
    TILES,
    PackedItems,
    PackedQueries,
    packed_bytes,
    whole_lines,
)
from fastneg.mining.search import PositiveLists, RankWindow, empty_window, no_positives, norms
from fastneg.streams import key_of, permutation, stream_of
from fastneg.threads import get_num_threads, run_chunks

_BLOCK_ROWS = 1_024  # of a thread: their packed vectors stay in cache while all items pass by
_SHARE = 16  # the large sample is one item in so many, and a small one says where it begins
_SMALL_SAMPLE = 2 * STRETCH
_ROOM = 4  # a buffer holds this many times the depth


class TilePlan(NamedTuple):
    """Queries of one thread's block, entries of a buffer, and the bytes of it all."""

    rows: int
    capacity: int
    bytes: int


def plan_tiles(num_items: int, width: int, depth: int, memory: int) -> TilePlan | None:
    """The sizes that fit ``memory`` bytes; None where the packed items alone do not."""
    capacity = max(min(_ROOM * depth + 256, num_items + 1), depth + 1)
    fixed = packed_bytes(num_items, width) * (_SHARE + 2) // _SHARE + 16 * capacity
    entry = get_num_threads() * (16 * capacity + 8 * depth + 8 * width + 128)
    rows = min(_BLOCK_ROWS, (memory - fixed) // entry // GROUP * GROUP)
    if rows < GROUP:
        return None
    return TilePlan(rows, capacity, fixed + rows * entry)


class TileSearch:
    """Exact windows by fused products and selection; see the module's text.

    Args:
        items: float32 [N, d], C-contiguous, finite; kept, and copied as bfloat16.
        plan: from ``plan_tiles`` for the deepest window that will be asked.
    """

    name = "exact"

    def __init__(self, items: Float32Array, plan: TilePlan) -> None:
        self.items = frozen(items)
        self._rows, self._capacity = plan.rows, plan.capacity
        self.block_rows = plan.rows * get_num_threads()
        # long items first: where lengths differ, the end of the catalog is never looked at
        order = np.argsort(-norms(items), kind="stable").astype(np.int32)
        self._packed = PackedItems(items, order)
        self._samples: list[PackedItems] = []
        size = len(items) // _SHARE // STRETCH * STRETCH
        if size >= 2 * _SMALL_SAMPLE:
            shuffled = permutation(key_of(0, stream_of("mining", "thresholds")), len(items))
            for chosen in (shuffled[:_SMALL_SAMPLE], shuffled[_SMALL_SAMPLE:size]):
                self._samples.append(PackedItems(items, np.sort(chosen).astype(np.int32)))

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {"arithmetic": "tiles"}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Search.arrays``."""
        return {}

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """See ``Search.find``."""
        out = empty_window(len(queries), window)

        def search(first: int, last: int) -> None:
            for start in range(GROUP * first, min(GROUP * last, len(queries)), self._rows):
                stop = min(start + self._rows, GROUP * last, len(queries))
                part = RankWindow(out.items[start:stop], out.scores[start:stop], window[0])
                self._find_rows(queries[start:stop], positives.rows(start, stop), window, part)

        run_chunks(search, -(-len(queries) // GROUP))
        return out

    def _find_rows(
        self,
        queries: Float32Array,
        positives: PositiveLists,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        """The windows of one thread's block."""
        rows = len(queries)
        usual = int(np.quantile(positives.counts, 0.9)) if rows else 0
        edges = np.full(rows, -np.inf, np.float32)
        for sample in self._samples:
            edges = self._guess(sample, queries, edges, window[1] + usual)
        guesses = edges.copy()
        self._scan(queries, positives, window, edges, out)
        # all items of a score of the guess or more are found: a last one above it is the true one
        missed = ~(out.scores[:, -1] >= guesses) & (guesses > -np.inf)
        again = np.flatnonzero(missed)
        if again.size:
            part = empty_window(again.size, window)
            edges = np.full(again.size, -np.inf, np.float32)
            chosen = np.ascontiguousarray(queries[again])
            self._scan(chosen, positives.take(again), window, edges, part)
            out.items[again], out.scores[again] = part.items, part.scores

    def _guess(
        self,
        sample: PackedItems,
        queries: Float32Array,
        edges: npt.NDArray[np.float32],
        depth: int,
    ) -> npt.NDArray[np.float32]:
        """float32 [B]: a score that about ``depth`` items reach, seldom fewer; -inf if unknown.

        ``edges`` says where to begin; what lies below in the sample is not looked at.
        """
        expected = depth * int((sample.ids >= 0).sum()) / len(self.items)
        rank = math.ceil(expected + 4.0 * math.sqrt(expected) + 4.0)
        none = no_positives(len(queries))
        counts, _, scores = _scan(
            sample, self.items, queries, none, rank, 4 * rank + 64, edges.copy()
        )
        best = np.where(np.arange(scores.shape[1]) < counts[:, None], scores, -np.inf)
        return -np.partition(-best, rank - 1, axis=1)[:, rank - 1].astype(np.float32)

    def _scan(
        self,
        queries: Float32Array,
        positives: PositiveLists,
        window: tuple[int, int],
        edges: npt.NDArray[np.float32],
        out: RankWindow,
    ) -> None:
        packed = PackedQueries.of(queries, self._packed)
        counts, items, scores = _scan(
            self._packed, self.items, queries, positives, window[1], self._capacity, edges
        )
        write_best(
            frozen(queries), self.items, window[1], packed.slack, counts, items, scores, window[0],
            out.items, out.scores,
        )  # fmt: skip


def _scan(
    items: PackedItems,
    vectors: Float32Array,
    queries: Float32Array,
    positives: PositiveLists,
    depth: int,
    capacity: int,
    edges: npt.NDArray[np.float32],
) -> tuple[IntArray, npt.NDArray[np.int32], Float32Array]:
    """What could be among the ``depth`` best: counts [B], items and products [B, C]."""
    rows = len(queries)
    packed = PackedQueries.of(queries, items)
    counts = np.zeros(rows, np.int64)
    found = np.empty((rows, capacity), np.int32), np.empty((rows, capacity), np.float32)
    scan_panels(
        TILES, packed.packed, items.steps, items.panels, items.ids, items.norms, items.residuals,
        packed.norms, packed.residuals, packed.slack, depth, frozen(queries), vectors,
        positives.starts, positives.stops, positives.items, edges, counts, *found,
        np.empty(rows, np.float32),
        whole_lines(len(packed.packed) // (2 * items.steps), np.float32),
        whole_lines(4 * GROUP * GROUP, np.float32),
    )  # fmt: skip
    return counts, *found
