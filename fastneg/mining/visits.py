"""Visits to lists of vectors: by the processor's matrix tiles where it has them, else by panels.

Both leave the same: exact windows among the vectors of the lists that a query asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, frozen
from fastneg.kernels.tile_visit import ROOM, visit_by_tiles
from fastneg.kernels.visit import pair_by_list, visit_lists, write_ranks
from fastneg.mining.bounds import float32_share, product_slack
from fastneg.mining.lists import Codes, lay_out
from fastneg.mining.packed import (
    GROUP,
    HAS_AMX,
    TILES,
    PackedLists,
    PackedQueries,
    whole_lines,
)
from fastneg.mining.search import PositiveLists, RankWindow, norms

_ROOM_OF_BUFFER = 2  # a buffer holds this many times the depth: more would leave the caches
_NEAR = 4  # the nearest lists, which are visited first, hold this many times the depth


class Visits(Protocol):
    """Vectors in lists, and what is best among those of the lists asked for.

    Attributes:
        arithmetic: how products are made; for reports.
        step: queries that a thread had best bring at a time.
    """

    arithmetic: str
    step: int

    def best_of(
        self,
        queries: Float32Array,
        wanted: Codes,
        positives: PositiveLists,
        places: IntArray,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        """The windows of queries [B, d] in the lists ``wanted`` [B, n] go to rows ``places``.

        ``wanted`` holds the nearest lists first, each once.
        """
        ...

    def bytes_for(self, rows: int, wanted: int, depth: int) -> int:
        """What ``best_of`` makes under way for so many queries of so many lists each."""
        ...


def visits_to(
    vectors: Float32Array, list_of_vector: Codes, num_lists: int, buffers: Buffers
) -> Visits:
    """Lay float32 [N, d] vectors out in lists."""
    kind = _TileVisits if HAS_AMX else _PanelVisits
    return kind(vectors, list_of_vector, num_lists, buffers)


class Buffers:
    """Buffers of threads, kept from one call to the next."""

    def __init__(self) -> None:
        self._free: list[tuple[Codes, Float32Array]] = []

    @contextmanager
    def of(self, rows: int, capacity: int) -> Iterator[tuple[Codes, Float32Array]]:
        """int32 and float32 [rows, capacity], for one thread at a time."""
        size = rows * capacity
        codes, scores = self._free.pop() if self._free else _room(0)
        if codes.size < size:
            codes, scores = _room(size)
        yield codes[:size].reshape(rows, capacity), scores[:size].reshape(rows, capacity)
        self._free.append((codes, scores))


def _room(size: int) -> tuple[Codes, Float32Array]:
    return np.empty(size, np.int32), np.empty(size, np.float32)


def _pairs(wanted: Codes, num_lists: int) -> tuple[IntArray, Codes]:
    pairs = np.empty(num_lists + 1, np.int64), np.empty(wanted.size, np.int32)
    pair_by_list(wanted, *pairs)
    return pairs


class _PanelVisits:
    arithmetic = "float32"
    step = 256

    def __init__(
        self, vectors: Float32Array, list_of_vector: Codes, num_lists: int, buffers: Buffers
    ) -> None:
        self._vectors, self._num_lists = vectors, num_lists
        self._lists = lay_out(vectors, list_of_vector, num_lists)
        self._longest = float(norms(vectors).max())
        self._buffers = buffers

    def bytes_for(self, rows: int, wanted: int, depth: int) -> int:
        width, buffer = int(self._vectors.shape[1]), 8 * _panel_capacity(depth)
        return rows * (buffer + 8 * wanted + 4 * width + 128) + 8 * self._num_lists + buffer

    def best_of(
        self, queries: Float32Array, wanted: Codes, positives: PositiveLists, places: IntArray,
        window: tuple[int, int], out: RankWindow,
    ) -> None:  # fmt: skip
        rows, depth, lists = len(queries), window[1], self._lists
        slack = frozen(product_slack(queries, self._longest, float32_share(queries.shape[1])))
        counts = np.zeros(rows, np.int64)
        with self._buffers.of(rows, _panel_capacity(depth)) as (codes, scores):
            visit_lists(
                *_pairs(wanted, self._num_lists), queries, lists.panels, lists.panel_borders,
                lists.borders, lists.order, self._vectors, depth, slack, positives.starts,
                positives.stops, positives.items, np.full(rows, -np.inf, np.float32), counts, codes,
                scores,
            )  # fmt: skip
            write_ranks(
                queries, self._vectors, depth, slack, positives.starts, positives.stops,
                positives.items, counts, codes, scores, window[0], places, out.items, out.scores,
            )  # fmt: skip


class _TileVisits:
    arithmetic = "tiles"
    step = 1_024

    def __init__(
        self, vectors: Float32Array, list_of_vector: Codes, num_lists: int, buffers: Buffers
    ) -> None:
        self._vectors = vectors
        self._lists = PackedLists(vectors, list_of_vector, num_lists)
        self._buffers = buffers

    def bytes_for(self, rows: int, wanted: int, depth: int) -> int:
        width, buffer = 32 * self._lists.steps, 8 * _tile_capacity(depth)
        fixed = 2 * ROOM * width + 18_432 + 8 * len(self._lists.sizes) + buffer
        return rows * (buffer + 16 * wanted + 8 * width + 512) + fixed

    def best_of(
        self, queries: Float32Array, wanted: Codes, positives: PositiveLists, places: IntArray,
        window: tuple[int, int], out: RankWindow,
    ) -> None:  # fmt: skip
        rows, depth, lists = len(queries), window[1], self._lists
        packed = PackedQueries.of(queries, lists)
        counts, edges = np.zeros(rows, np.int64), np.full(rows, -np.inf, np.float32)
        scratch: tuple[npt.NDArray[Any], ...] = (
            whole_lines(ROOM * 32 * lists.steps, np.uint16),
            whole_lines(4 * GROUP * GROUP, np.float32), whole_lines(GROUP * 16, np.float32),
        )  # fmt: skip
        # the nearest lists say what the others' items must reach
        near = -(-_NEAR * depth * len(lists.sizes) // len(self._vectors))
        with self._buffers.of(rows, _tile_capacity(depth)) as (codes, scores):
            for part in (wanted[:, :near], wanted[:, near:]):
                if part.size == 0:
                    continue
                visit_by_tiles(
                    TILES, *_pairs(np.ascontiguousarray(part), len(lists.sizes)), packed.packed,
                    lists.steps, lists.panels, lists.borders, lists.sizes, lists.ids, lists.norms,
                    lists.residuals, packed.norms, packed.residuals, packed.slack, depth, queries,
                    self._vectors, positives.starts, positives.stops, positives.items, edges,
                    counts, codes, scores, *scratch,
                )  # fmt: skip
            write_ranks(
                queries, self._vectors, depth, packed.slack, positives.starts, positives.stops,
                positives.items, counts, codes, scores, window[0], places, out.items, out.scores,
            )  # fmt: skip


def _panel_capacity(depth: int) -> int:
    return _ROOM_OF_BUFFER * depth + 256


def _tile_capacity(depth: int) -> int:
    return _ROOM_OF_BUFFER * depth + 384
