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

from fastneg.checks import Float32Array, IntArray, fail, frozen
from fastneg.mining.lists import POINTS_PER_LIST, ROUNDS, Codes, make_lists
from fastneg.mining.search import PositiveLists, RankWindow, empty_window, no_positives
from fastneg.mining.visits import Buffers, visits_to
from fastneg.threads import get_num_threads, run_chunks

_MOST_ROWS = 65_536
_SCRATCH = 163_840  # bytes of a thread: lines of products, keys, what NumPy makes under way
_GUIDE = 128  # centroids of a list of centroids: bounds rise from one to the next


def num_lists_for(num_items: int) -> int:
    """L: about 4 sqrt(N), a power of two, with items enough to train each."""
    lists: int = 2 ** round(math.log2(4 * math.sqrt(num_items)))
    return max(1, min(lists, num_items // POINTS_PER_LIST))


def training_products(num_items: int, num_lists: int) -> int:
    """How many inner products it takes to train so many lists and to fill them."""
    return num_lists * (ROUNDS * num_lists * POINTS_PER_LIST + num_items)


class IvfSearch:
    """Windows among the items of the lists nearest to each query; see the module's text.

    Args:
        items: float32 [N, d], C-contiguous, finite; kept, and copied once list by list.
        num_lists: L, at most N.
        memory: bytes for one block's buffers and results; the copy of the items is not counted.
        depth: the deepest rank that will be asked.
        seed: of the sample that centroids are trained on.
        call: the function that was called, for errors.
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
            made = make_lists(self.items, num_lists, seed)
            self._centroids, self._list_of_item = frozen(made[0]), frozen(made[1])
        else:
            self._centroids = frozen(np.ascontiguousarray(saved["centroids"], np.float32))
            self._list_of_item = frozen(np.ascontiguousarray(saved["list_of_item"], np.int32))
            self._check_saved(num_lists)
        self.most_effort = len(self._centroids)
        self._buffers = Buffers()
        self._lists = visits_to(self.items, self._list_of_item, self.most_effort, self._buffers)
        guide = np.arange(self.most_effort, dtype=np.int32) // _GUIDE
        self._guides = int(guide[-1]) + 1
        self._guide = visits_to(self._centroids, guide, self._guides, self._buffers)
        self.set_effort(1)

    def _check_saved(self, num_lists: int) -> None:
        """Kernels would follow a wrong list number anywhere."""
        wrong = self._centroids.shape != (num_lists, self.items.shape[1]) or (
            self._list_of_item.shape != (len(self.items),)
        )
        wrong = wrong or not np.isfinite(self._centroids).all()
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
        threads = get_num_threads()
        each = 8 * self._depth + 4 * value + 16

        def needed(step: int) -> int:
            """Of all threads, whose turns bring so many queries."""
            lists = self._lists.bytes_for(step, value, self._depth)
            guide = self._guide.bytes_for(step, self._guides, value)
            return threads * (max(lists, guide) + _SCRATCH)

        step = self._lists.step
        while step > 1 and needed(step) + threads * step * each > self._memory:
            step //= 2
        if needed(1) + each > self._memory:
            fail(
                self._call,
                f"memory = {self._memory} bytes is too little for one query; give "
                f"{needed(1) + threads * each} or more",
            )
        self._step = step
        self.block_rows = int(min(_MOST_ROWS, (self._memory - needed(step)) // each))

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {
            "num_lists": self.most_effort,
            "nprobe": self._nprobe,
            "arithmetic": self._lists.arithmetic,
        }

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
        """The best lists of each query, by its products with their centroids."""
        rows = len(queries)
        every = np.tile(np.arange(self._guides, dtype=np.int32), (rows, 1))
        chosen = RankWindow(probed, np.empty(probed.shape, np.float32), 1)
        self._guide.best_of(
            queries, every, no_positives(rows), np.arange(rows), (1, self._nprobe), chosen
        )

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
        self._lists.best_of(
            frozen(queries[turns]), probed[turns], positives.take(turns), turns, window, out
        )


def _share_out(function: Callable[[int], object], work: Iterable[int]) -> None:
    """Call ``function`` with each of ``work``; a thread that is free takes the next."""
    pieces = list(work)
    turn = count()

    def run(a: int, b: int) -> None:
        while (place := next(turn)) < len(pieces):
            function(pieces[place])

    run_chunks(run, min(len(pieces), get_num_threads()))
