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
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, FloatArray, IntArray, fail, frozen
from fastneg.kernels.visit import pair_by_list, visit_lists, write_ranks
from fastneg.mining.lists import (
    POINTS_PER_LIST,
    ROUNDS,
    Codes,
    Lists,
    assign,
    lay_out,
    train_centroids,
)
from fastneg.mining.search import PositiveLists, RankWindow, empty_window, no_positives, norms
from fastneg.threads import get_num_threads, run_chunks

_MOST_ROWS = 65_536
_ROOM = 2  # a buffer holds this many times the depth: more would leave the nearest caches
_SCRATCH = 163_840  # bytes of a thread: lines of products, keys, what NumPy makes under way
_STEP = 256  # queries that a thread works on at a time: their buffers stay in its cache


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
        self._rooms: list[tuple[Codes, Float32Array]] = []  # a thread's buffers, kept
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
        width = self.items.shape[1]
        buffer = 8 * _capacity(max(self._depth, value)) + 12 * value + 4 * width + 128
        fixed = get_num_threads() * (8 * self.most_effort + 8 * _capacity(self._depth) + _SCRATCH)
        each = 8 * self._depth + 4 * value + 16
        room = self._memory - fixed
        self._step = min(_STEP, room // 2 // (get_num_threads() * buffer))
        if self._step < 1:
            enough = fixed + 2 * get_num_threads() * max(buffer, each)
            fail(
                self._call,
                f"memory = {self._memory} bytes is too little for one query; give {enough} or more",
            )
        room -= self._step * get_num_threads() * buffer
        self.block_rows = int(min(_MOST_ROWS, room // each))

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {"num_lists": self.most_effort, "nprobe": self._nprobe, "arithmetic": "float32"}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """float32 [L, d] centroids and int32 [N] list_of_item."""
        return {"centroids": self._centroids, "list_of_item": self._list_of_item}

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """See ``Search.find``."""
        rows = len(queries)
        queries = frozen(queries)
        out = empty_window(rows, window)
        probed = np.empty((rows, self._nprobe), np.int32)
        step = self._step

        def choose(first: int) -> None:
            part = slice(first, min(first + step, rows))
            self._choose_lists(queries[part], probed[part])

        _share_out(choose, range(0, rows, step))
        turns = np.argsort(probed[:, 0], kind="stable")  # the same lists at the same time

        def visit(first: int) -> None:
            self._visit(queries, probed, positives, turns[first : first + step], window, out)

        _share_out(visit, range(0, rows, step))
        return out

    def _choose_lists(self, queries: Float32Array, probed: Codes) -> None:
        """The best lists of each query, by its products with their centroids: one list of them."""
        rows = len(queries)
        pairs = np.array([0, rows], np.int64), np.arange(rows, dtype=np.int32)
        scores = np.empty(probed.shape, np.float32)
        chosen = RankWindow(probed, scores, 1)
        self._best_of(
            queries, pairs, self._guide, self._centroids, self._longest_centroid,
            no_positives(rows), np.arange(rows), (1, self._nprobe), chosen,
        )  # fmt: skip

    def _visit(
        self,
        queries: Float32Array,
        probed: Codes,
        positives: PositiveLists,
        turns: IntArray,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        """The windows of the queries ``turns``, from the lists that they ask for."""
        wanted = probed[turns]
        pairs = np.empty(self.most_effort + 1, np.int64), np.empty(wanted.size, np.int32)
        pair_by_list(wanted, *pairs)
        self._best_of(
            frozen(queries[turns]), pairs, self._lists, self.items, self._longest,
            positives.take(turns), turns, window, out,
        )  # fmt: skip

    def _best_of(
        self,
        queries: Float32Array,
        pairs: tuple[IntArray, Codes],
        lists: Lists,
        vectors: Float32Array,
        longest: float,
        positives: PositiveLists,
        places: IntArray,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        """Visit lists with the queries that ``pairs`` them with; their windows go to ``places``."""
        rows, depth = len(queries), window[1]
        slack = _slack(queries, longest)
        counts = np.zeros(rows, np.int64)
        shape = (rows, _capacity(depth))
        size = rows * shape[1]
        room = (
            self._rooms.pop() if self._rooms else (np.empty(0, np.int32), np.empty(0, np.float32))
        )
        if room[0].size < size:
            room = np.empty(size, np.int32), np.empty(size, np.float32)
        codes, scores = room[0][:size].reshape(shape), room[1][:size].reshape(shape)
        visit_lists(
            *pairs, queries, lists.panels, lists.panel_borders, lists.borders, lists.order, vectors,
            depth, slack, positives.starts, positives.stops, positives.items,
            np.full(rows, -np.inf, np.float32), counts, codes, scores,
        )  # fmt: skip
        write_ranks(
            queries, vectors, depth, slack, positives.starts, positives.stops, positives.items,
            counts, codes, scores, window[0], places, out.items, out.scores,
        )  # fmt: skip
        self._rooms.append(room)


def _share_out(function: Callable[[int], object], work: Iterable[int]) -> None:
    """Call ``function`` with each of ``work``; a thread that is free takes the next."""
    pieces = list(work)
    turn = count()

    def run(a: int, b: int) -> None:
        while (place := next(turn)) < len(pieces):
            function(pieces[place])

    run_chunks(run, min(len(pieces), get_num_threads()))
