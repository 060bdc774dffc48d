"""Approximate search by any FAISS index, named by its factory string.

The index only nominates: what it finds is scored again exactly, so that ranks and scores are those
of the vectors and not of a quantiser. What it misses, it misses; ``measure_recall`` says how much
of the true windows remains, and ``calibrate`` finds the least effort (IVF: nprobe, HNSW: efSearch)
that keeps the share asked for.

A query with p positives is searched to the window's end + p, p rounded up to a power of two: what
is found for it never depends on the queries beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch  # noqa: F401  (its OpenMP before FAISS's: the other order has hung on some machines)

import faiss  # isort: skip

from fastneg.checks import Float32Array, IntArray, fail, frozen
from fastneg.kernels.selection import rank_found
from fastneg.mining.search import (
    SMALLEST_CHUNK,
    PositiveLists,
    RankWindow,
    empty_window,
    far_exponents,
)
from fastneg.threads import get_num_threads, is_forked, run_chunks

_POINTS_PER_LIST = 39  # what FAISS wants for each centroid it trains
_MOST_EFFORT = 16_384  # of efSearch, which has no natural end


def ivf_factory(num_items: int) -> str:
    """An IVF index for so many items: about 4 sqrt(N) lists, with points enough to train each."""
    lists = min(2 ** round(math.log2(4 * math.sqrt(num_items))), num_items // _POINTS_PER_LIST)
    return f"IVF{max(1, lists)},Flat"


def _reason(error: BaseException) -> str:
    """What FAISS said, without the C++ function and file around it."""
    text = str(error).strip().splitlines()[0]
    for mark in (" failed: ", ".cpp:"):
        if mark in text:
            text = text.split(mark, 1)[1]
    return text.split(": ", 1)[-1] if text[:1].isdigit() else text


@contextmanager
def _own_threads() -> Iterator[None]:
    """FAISS on as many threads as fastneg uses, and back to what it had.

    One in a forked process: FAISS brings an OpenMP of its own, whose threads a fork does not copy.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if is_forked() else get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class FaissSearch:
    """Windows from a FAISS index over inner products; the index holds a copy of the items.

    Args:
        items: float32 [N, d], C-contiguous, finite.
        factory: a string for ``faiss.index_factory``, such as "IVF1024,Flat" or "HNSW32".
        memory: bytes for one block's results.
        depth: the deepest rank that will be asked, before positives.
        most_positives: the largest number of positives of a query.
        call: the function that was called, for errors.
        saved: ``arrays()["index"]`` of an earlier one, instead of building it.

    Attributes:
        effort: the name of what ``set_effort`` sets ("nprobe", "efSearch"), or None.
        most_effort: its largest useful value.

    Raises:
        FastnegError: a string that FAISS cannot parse for this width, or too few items to train.
    """

    def __init__(
        self,
        items: Float32Array,
        factory: str,
        memory: int,
        depth: int,
        most_positives: int,
        *,
        call: str,
        saved: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.name = f"faiss:{factory}"
        self.items = frozen(items)
        self._call = call
        per_query = 12 * min(len(items), depth + _room(most_positives)) + 8 * depth
        self.block_rows = int(max(1, min(4_096, memory // per_query)))
        self.index = self._build(factory) if saved is None else faiss.deserialize_index(saved)
        self.effort: str | None = None
        self.most_effort = 1
        lists = faiss.try_extract_index_ivf(self.index)
        if lists is not None:
            self.effort, self.most_effort = "nprobe", int(lists.nlist)
        elif "HNSW" in factory:
            self.effort, self.most_effort = "efSearch", min(_MOST_EFFORT, len(items))

    def _build(self, factory: str) -> Any:
        num_items, width = self.items.shape
        try:
            index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            fail(
                self._call,
                f"search = {self.name!r}: FAISS cannot make this index for inner "
                f"products of width {width} ({_reason(error)})",
            )
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            if num_items < lists.nlist:
                fail(
                    self._call,
                    f"search = {self.name!r} trains {lists.nlist} lists and there are "
                    f"only {num_items} items; give at most IVF{num_items}, better "
                    f"{ivf_factory(num_items)!r}, or search='exact'",
                )
            if lists.nlist < 1:
                fail(self._call, f"search = {self.name!r} has {lists.nlist} lists; give 1 or more")
            lists.cp.min_points_per_centroid = 1  # FAISS would write its warning to stderr
        # FAISS squares lengths, and ends the process where they are infinite
        shift = int(far_exponents(self.items.reshape(1, -1))[0])
        scaled = self.items if shift == 0 else np.ldexp(self.items, -shift)
        try:
            with _own_threads():
                index.train(scaled)
                index.add(scaled)
        except RuntimeError as error:
            fail(
                self._call,
                f"search = {self.name!r}: FAISS cannot build this index over "
                f"{num_items} items of width {width} ({_reason(error)})",
            )
        return index

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The index as FAISS writes it."""
        return {"index": faiss.serialize_index(self.index)}

    def set_effort(self, value: int) -> None:
        """Set nprobe or efSearch; an index with neither ignores it."""
        if self.effort is not None:
            faiss.ParameterSpace().set_index_parameter(self.index, self.effort, value)

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """See ``Search.find``."""
        out = empty_window(len(queries), window)
        room = np.array([_room(int(count)) for count in positives.counts], np.int64)
        for extra in np.unique(room):
            rows = np.flatnonzero(room == extra)
            self._find_rows(rows, int(extra), queries, positives, window, out)
        return out

    def _find_rows(
        self,
        rows: IntArray,
        extra: int,
        queries: Float32Array,
        positives: PositiveLists,
        window: tuple[int, int],
        out: RankWindow,
    ) -> None:
        depth = min(len(self.items), window[1] + extra)
        part, lists = frozen(queries[rows]), positives.take(rows)
        shifts = far_exponents(part)
        scaled = np.ldexp(part, -shifts[:, None]) if shifts.any() else part
        with _own_threads():
            _, found = self.index.search(scaled, depth)
        ranked = empty_window(len(rows), window)

        def rank(a: int, b: int) -> None:
            rank_found(
                found[a:b],
                part[a:b],
                self.items,
                lists.starts[a:b],
                lists.stops[a:b],
                lists.items,
                window[0],
                ranked.items[a:b],
                ranked.scores[a:b],
            )

        run_chunks(rank, len(rows), smallest=SMALLEST_CHUNK)
        out.items[rows], out.scores[rows] = ranked.items, ranked.scores


def _room(num_positives: int) -> int:
    """0, or the power of two that is not below: how much deeper a query is searched."""
    return 0 if num_positives <= 0 else 1 << (num_positives - 1).bit_length()
