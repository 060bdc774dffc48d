"""Scores of queries with items of their own, and their gradients, without copies of the vectors.

Torch has a batched product for it, one call of a matrix product for each row: of a few items a row
it spends its time on the calls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import kernel
from fastneg.kernels.llvm import flat, wide_vectors
from fastneg.kernels.rescore import exact_scores

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@kernel
def score_own(
    queries: Floats, items: Floats, codes: Codes, scores: Floats, start: int, stop: int
) -> None:
    """Queries ``start..stop - 1`` with items of their own: ``scores[b, c]``, of item codes[b, c].

    Args:
        queries: float32 [B, d].
        items: float32 [N, d].
        codes: integers [B, C], in 0..N-1.
        scores: float32 [B, C], written.
    """
    wide = np.empty(queries.shape[1], np.float64)
    for b in range(start, stop):
        exact_scores(queries[b], flat(items), codes[b], codes.shape[1], wide, scores[b])


@kernel
def own_gradients(
    given: Floats,
    queries: Floats,
    items: Floats,
    of_queries: Floats,
    of_items: Floats,
    start: int,
    stop: int,
) -> None:
    """Gradients of ``scores[b, c] = queries[b] . items[b, c]`` for rows ``start..stop - 1``.

    Args:
        given: float32 [B, C], the scores' gradients.
        queries: float32 [B, d].
        items: float32 [B, C, d].
        of_queries: float32 [B, d], written: the sum over c, in order, of given[b, c] items[b, c].
        of_items: float32 [B, C, d], written: given[b, c] queries[b].
    """
    wide_vectors()
    width = queries.shape[1]
    for b in range(start, stop):
        query, total = queries[b], of_queries[b]
        for k in range(width):
            total[k] = np.float32(0.0)
        for c in range(given.shape[1]):
            weight, item, own = given[b, c], items[b, c], of_items[b, c]
            for k in range(width):
                total[k] += weight * item[k]
                own[k] = weight * query[k]
