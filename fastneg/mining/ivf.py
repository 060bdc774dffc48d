"""Batched IVF: each list of items is visited once, with all the queries of a block that ask for it.

A query asks for the ``nprobe`` lists whose centroids have the largest products with it, ties to
the lower list. What the lists hold is then searched exactly: ranks and scores are those of the
exact inner products among the items of a query's lists, whatever the block, the threads or the
rounding of products.

Equivalent slow code for one query::

    near = np.lexsort((np.arange(L), -exact(query, centroids)))[:nprobe]
    held = np.flatnonzero(np.isin(list_of_item, near))
    scores = exact(query, items[held])
    window = the ranks asked among held[order of (-score, id)] without the positives
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, FloatArray, fail, frozen
from fastneg.kernels.visit import pair_by_list, visit_lists, write_ranks
from fastneg.mining.lists import (
    POINTS_PER_LIST,
    ROUNDS,
    Codes,
    assign,
    lay_out,
    train_centroids,
)
from fastneg.mining.search import PositiveLists, RankWindow, empty_window, no_positives, norms
from fastneg.threads import run_chunks

_MOST_ROWS = 65_536
_ROOM = 4  # a buffer holds this many times the depth, so that it is seldom cut back
_SMALLEST_CHUNK = 16


def num_lists_for(num_items: int) -> int:
    """L: about 4 sqrt(N), a power of two, with items enough to train each."""
    lists: int = 2 ** round(math.log2(4 * math.sqrt(num_items)))
    return max(1, min(lists, num_items // POINTS_PER_LIST))


def training_products(num_items: int, num_lists: int) -> int:
    """How many inner products it takes to train so many lists and to fill them."""
    return num_lists * (ROUNDS * num_lists * POINTS_PER_LIST + num_items)


def _capacity(depth: int) -> int:
    return _ROOM * depth + 256


def _slack(queries: Float32Array, longest: float) -> FloatArray:
    """float64 [B]: the most that a product may be off, rounding of scores included.

    |error| <= d u |q||x| for a sum of d float32 products in any order, fused or not (u = 2^-24).
    """
    slack: FloatArray = norms(queries) * (longest * (queries.shape[1] + 8) * 2.0**-24 * 1.01)
    return slack


class IvfSearch:
    """Windows among the items of the lists nearest to each query; see the module's text.

    Args:
        items: float32 [N, d], C-contiguous, finite; kept, and copied once list by list.
        num_lists: L, at most N.
        memory: bytes for one block's buffers and results; the copy of the items is not counted.
        depth: the deepest rank that will be asked.
        seed: of the sample that centroids are trained on.
        call: who was called, for errors.
        saved: ``arrays()`` of an earlier one, instead of training.

    Attributes:
        effort: "nprobe", what ``set_effort`` sets; 1 at first.
        most_effort: L.

    Raises:
        FastnegError: not even one query's buffer fits into ``memory``.
    """

    name = "ivf"
    effort: str | None = "nprobe"

    def __init__(
        self,
        items: Float32Array,
        num_lists: int,
        memory: int,
        depth: int,
        seed: int,
        *,
        call: str,
        saved: dict[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        self.items = frozen(items)
        self._call, self._memory, self._depth = call, memory, depth
        if saved is None:
            self._centroids = frozen(train_centroids(self.items, num_lists, seed))
            self._list_of_item = frozen(assign(self.items, self._centroids))
        else:
            self._centroids = frozen(np.ascontiguousarray(saved["centroids"], np.float32))
            self._list_of_item = frozen(np.ascontiguousarray(saved["list_of_item"], np.int32))
            self._check_saved(num_lists)
        self.most_effort = len(self._centroids)
        self._lists = lay_out(self.items, self._list_of_item, self.most_effort)
        one_list = np.zeros(self.most_effort, np.int32)
        self._guide = lay_out(self._centroids, one_list, 1)
        self._longest = float(norms(items).max())
        self._longest_centroid = float(norms(self._centroids).max())
        self._codes = np.empty(0, np.int32)
        self._scores = np.empty(0, np.float32)
        self.set_effort(1)

    def _check_saved(self, num_lists: int) -> None:
        """Kernels would follow a wrong list number anywhere."""
        wrong = self._centroids.shape != (num_lists, self.items.shape[1]) or (
            self._list_of_item.shape != (len(self.items),)
        )
        if wrong or self._list_of_item.min() < 0 or self._list_of_item.max() >= num_lists:
            fail(
                self._call,
                f"the stored lists (centroids {self._centroids.shape}, list_of_item "
                f"{self._list_of_item.shape}) are not {num_lists} lists of these "
                f"{len(self.items)} items of width {self.items.shape[1]}",
            )

    def set_effort(self, value: int) -> None:
        """Set nprobe, 1 .. L; blocks become as large as ``memory`` allows."""
        self._nprobe = value
        buffers = 8 * _capacity(max(self._depth, value))
        per_row = buffers + 8 * self._depth + 12 * value + 4 * self.items.shape[1] + 64
        if self._memory < per_row:
            fail(
                self._call,
                f"memory = {self._memory} bytes is too little for one query; give {per_row} or "
                "more",
            )
        self.block_rows = int(min(_MOST_ROWS, self._memory // per_row))

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {"num_lists": self.most_effort, "nprobe": self._nprobe, "arithmetic": "float32"}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """float32 [L, d] centroids and int32 [N] list_of_item."""
        return {"centroids": self._centroids, "list_of_item": self._list_of_item}

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """See ``Search.find``; one call at a time (the buffers are its own)."""
        rows = len(queries)
        queries = frozen(queries)
        out = empty_window(rows, window)
        probed = np.empty((rows, self._nprobe), np.int32)
        self._width = _capacity(max(self._nprobe, self._depth, window[1]))
        if self._codes.size < rows * self._width:
            self._codes = np.empty(rows * self._width, np.int32)
            self._scores = np.empty(rows * self._width, np.float32)

        def run(a: int, b: int) -> None:
            part = queries[a:b]
            self._choose_lists(part, a, probed[a:b])
            self._visit(part, a, probed[a:b], positives.rows(a, b), window, out)

        run_chunks(run, rows, smallest=_SMALLEST_CHUNK)
        return out

    def _buffers(self, first: int, rows: int, depth: int) -> tuple[Codes, Float32Array]:
        """[rows, C] each, of the part of the memory that is the chunk's own."""
        width = _capacity(depth)
        part = slice(first * self._width, first * self._width + rows * width)
        return self._codes[part].reshape(rows, width), self._scores[part].reshape(rows, width)

    def _choose_lists(self, queries: Float32Array, first: int, probed: Codes) -> None:
        """The best lists of each query, by its products with their centroids: one list of them."""
        rows, guide = len(queries), self._guide
        slack = _slack(queries, self._longest_centroid)
        none = no_positives(rows)
        counts = np.zeros(rows, np.int64)
        codes, scores = self._buffers(first, rows, self._nprobe)
        visit_lists(
            np.array([0, rows], np.int64), np.arange(rows, dtype=np.int32), queries,
            guide.panels, guide.panel_borders, guide.borders, guide.order, self._centroids,
            self._nprobe, slack, none.starts, none.stops, none.items,
            np.full(rows, -np.inf, np.float32), counts, codes, scores,
        )  # fmt: skip
        write_ranks(
            queries, self._centroids, self._nprobe, slack, none.starts, none.stops, none.items,
            counts, codes, scores, 1, probed, np.empty(probed.shape, np.float32),
        )  # fmt: skip

    def _visit(
        self,
        queries: Float32Array,
        first: int,
        probed: Codes,
        positives: PositiveLists,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        rows, lists, depth = len(queries), self._lists, window[1]
        slack = _slack(queries, self._longest)
        pair_starts = np.empty(self.most_effort + 1, np.int64)
        pair_rows = np.empty(probed.size, np.int32)
        pair_by_list(probed, pair_starts, pair_rows)
        counts = np.zeros(rows, np.int64)
        codes, scores = self._buffers(first, rows, depth)
        visit_lists(
            pair_starts, pair_rows, queries, lists.panels, lists.panel_borders, lists.borders,
            lists.order, self.items, depth, slack, positives.starts, positives.stops,
            positives.items, np.full(rows, -np.inf, np.float32), counts, codes, scores,
        )  # fmt: skip
        write_ranks(
            queries, self.items, depth, slack, positives.starts, positives.stops, positives.items,
            counts, codes, scores, window[0], out.items[first : first + rows],
            out.scores[first : first + rows],
        )  # fmt: skip
