"""What a search is: for a block of queries, the items at a window of ranks among non-positives.

Every engine (exact, FAISS, and what comes later) stands behind ``Search``. An engine is asked for
the window and not for a sorted list, so that it may do only what the window needs.

Legend: Q queries, N items, d width, B queries of a block, W ranks of a window.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, as_codes, as_csr, fail, frozen
from fastneg.errors import FastnegTypeError

Codes = npt.NDArray[np.int32]
SMALLEST_CHUNK = 4  # rows below which a thread is not worth its start


class PositiveLists(NamedTuple):
    """Each query's positives: ``items[starts[q]:stops[q]]``, ascending and distinct."""

    starts: IntArray
    stops: IntArray
    items: IntArray

    def rows(self, start: int, stop: int) -> PositiveLists:
        """The lists of queries ``start`` .. ``stop - 1``."""
        return PositiveLists(self.starts[start:stop], self.stops[start:stop], self.items)

    def take(self, rows: IntArray) -> PositiveLists:
        """The lists of some queries, in their order."""
        return PositiveLists(self.starts[rows], self.stops[rows], self.items)

    @property
    def counts(self) -> IntArray:
        """int64 [Q]: positives of each query."""
        return self.stops - self.starts


class RankWindow(NamedTuple):
    """The items of a block of queries at ranks ``first_rank`` .. ``first_rank + W - 1``.

    Attributes:
        items: int32 [B, W], best first, ties to the lower id; -1 where a query has fewer items.
        scores: float32 [B, W], exact inner products rounded once; -inf where there is no item.
        first_rank: the rank of column 0; rank 1 is the query's best non-positive.
    """

    items: Codes
    scores: Float32Array
    first_rank: int


class Search(Protocol):
    """An engine that holds the items and answers blocks of queries.

    Attributes:
        name: what the report calls it.
        block_rows: the most queries that one call may bring, so that memory stays bounded.
    """

    name: str
    block_rows: int

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """The window (both ends included, from rank 1) of each query, positives left out."""
        ...

    def facts(self) -> dict[str, Any]:
        """What was chosen when it was made and decides what it finds; JSON-able."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was trained, by name; empty where nothing was."""
        ...


class Engine(NamedTuple):
    """A search that is ready, and what is known of it.

    Attributes:
        search: the engine.
        effort: what was calibrated, by name; empty where nothing was.
        recall_asked: None for exact search.
        recall: the share of true window members found on the sample; 1 for exact search.
        recall_queries: size of the sample; 0 for exact search.
        device: where products are made.
    """

    search: Search
    effort: dict[str, int]
    recall_asked: float | None
    recall: float
    recall_queries: int
    device: str

    def facts(self) -> dict[str, Any]:
        """What ``open_engine`` needs beside ``arrays``; JSON-able."""
        return {
            "search": self.search.name,
            "effort": self.effort,
            "recall_asked": self.recall_asked,
            "recall": self.recall,
            "recall_queries": self.recall_queries,
            "device": self.device,
            **self.search.facts(),
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was trained, by name (centroids, lists, a whole index); empty for exact search."""
        return self.search.arrays()


def no_positives(num_queries: int) -> PositiveLists:
    """Lists for queries without any positive."""
    zeros = np.zeros(num_queries, np.int64)
    return PositiveLists(zeros, zeros.copy(), frozen(np.empty(0, np.int64)))


def empty_window(rows: int, window: tuple[int, int]) -> RankWindow:
    """A window with room for every rank, nothing in it yet."""
    shape = (rows, window[1] - window[0] + 1)
    return RankWindow(np.empty(shape, np.int32), np.empty(shape, np.float32), window[0])


def read_positives(
    positives: Any, query_users: Any, num_queries: int, num_items: int, *, call: str
) -> PositiveLists:
    """Positives in any accepted form as lists, one per query.

    Args:
        positives: None; ``(indptr, items)`` or an object with ``indptr`` and ``indices`` (a SciPy
            CSR matrix), one row per query; or ``Interactions``.
        query_users: with Interactions, the user code of each query, -1 for none; None: row u is
            user u, and there are as many queries as users.
        num_queries: Q.
        num_items: N.
        call: the function that was called, for errors.

    Raises:
        FastnegError: sizes that do not fit, or codes out of range.
    """
    if hasattr(positives, "positive_indptr"):
        return _from_interactions(positives, query_users, num_queries, num_items, call)
    if query_users is not None:
        fail(
            call,
            "query_users is given, but positives is not an Interactions; a CSR has one row "
            "per query and needs no users",
        )
    if positives is None:
        return no_positives(num_queries)
    if hasattr(positives, "indptr") and hasattr(positives, "indices"):
        positives = (positives.indptr, positives.indices)
    if not isinstance(positives, (tuple, list)) or len(positives) != 2:
        raise FastnegTypeError(
            f"{call}: positives is a {type(positives).__name__}; give (indptr, items) with one row "
            "per query, or Interactions together with query_users"
        )
    indptr, items = as_csr(positives[0], positives[1], num_items, call=call, name="positives")
    if indptr.size != num_queries + 1:
        fail(
            call,
            f"positives has {indptr.size - 1} rows and there are {num_queries} queries; "
            "give one row of positives per query",
        )
    return _sorted_lists(indptr, items)


def _from_interactions(
    interactions: Any, query_users: Any, num_queries: int, num_items: int, call: str
) -> PositiveLists:
    if interactions.num_items != num_items:
        fail(
            call,
            f"positives has {interactions.num_items} items and items has {num_items} "
            "vectors; give one vector per item of the interactions, in the order of codes",
        )
    indptr, items = interactions.positive_indptr, interactions.positive_items
    if query_users is None:
        if interactions.num_users != num_queries:
            fail(
                call,
                f"there are {num_queries} queries and {interactions.num_users} users; give "
                "query_users, the user code of each query (-1 for none)",
            )
        return PositiveLists(indptr[:-1].copy(), indptr[1:].copy(), frozen(items))
    users = as_codes(
        query_users, interactions.num_users, call=call, name="query_users", unknown=True
    )
    if users.size != num_queries:
        fail(call, f"query_users has {users.size} codes and there are {num_queries} queries")
    known = users >= 0
    starts = np.where(known, indptr[users], 0)
    return PositiveLists(starts, np.where(known, indptr[users + 1], 0), frozen(items))


def _sorted_lists(indptr: IntArray, items: IntArray) -> PositiveLists:
    """Sorted, distinct rows; the arrays themselves where they are that already."""
    rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    same = rows[1:] == rows[:-1]
    if not (same & (items[1:] <= items[:-1])).any():
        return PositiveLists(indptr[:-1].copy(), indptr[1:].copy(), frozen(items))
    order = np.lexsort((items, rows))
    rows, items = rows[order], items[order]
    keep = np.ones(items.size, np.bool_)
    keep[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
    starts = np.concatenate(([0], np.cumsum(np.bincount(rows[keep], minlength=indptr.size - 1))))
    return PositiveLists(starts[:-1].copy(), starts[1:].copy(), frozen(items[keep]))


def norms(vectors: Float32Array) -> npt.NDArray[np.float64]:
    """float64 [n]: Euclidean lengths, in blocks."""
    out = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), 16_384):
        block = vectors[start : start + 16_384].astype(np.float64)
        out[start : start + len(block)] = np.sqrt(np.einsum("nd,nd->n", block, block))
    return out


def far_exponents(rows: Float32Array) -> npt.NDArray[np.int32]:
    """int32 [n]: the exponent of each row's largest coordinate, where it is far from 0; else 0.

    Squares and products of ordinary numbers stay within float32. Vectors beyond 2^40 or below 2^-40
    are scaled by these powers of two before anything that needs squares: no digit changes.
    """
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    exponents: npt.NDArray[np.int32] = np.frexp(largest)[1]
    return np.where((np.abs(exponents) <= 40) | (largest == 0), np.int32(0), exponents)


def normalised(vectors: Float32Array) -> Float32Array:
    """A copy with every vector at length 1; zero vectors stay zero."""
    lengths = norms(vectors)
    lengths[lengths == 0] = 1.0
    out = np.empty_like(vectors)
    for start in range(0, len(vectors), 16_384):
        part = slice(start, start + 16_384)
        out[part] = vectors[part] / lengths[part, None]
    return out


def check_range(
    queries: Float32Array, items: Float32Array, *, call: str
) -> tuple[npt.NDArray[np.float64], float]:
    """Lengths of the queries, float64 [Q], and of the longest item.

    Raises:
        FastnegError: vectors so long that an inner product may not be a finite float32.
    """
    lengths, longest = norms(queries), float(norms(items).max())
    largest = float(lengths.max()) * longest
    if not math.isfinite(largest) or largest > 1e38:
        fail(
            call,
            f"the longest query and the longest item have an inner product up to "
            f"{largest:.3g}, too large for float32; scale the vectors down",
        )
    return lengths, longest
