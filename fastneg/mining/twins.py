"""Twins: items that equal a positive of the query, by their vectors or by their scores.

A catalog often has the same text or product under several ids. Such an item is as relevant as the
positive that it copies, and no rank window keeps it out. Equal vectors have equal scores; equal
scores without equal vectors are those of copies whose vectors were rounded differently (of another
length before "cosine" normalised them, or made in another batch), and of a few chance neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, frozen
from fastneg.kernels.twins import mark_twins
from fastneg.mining.constant import Marks
from fastneg.mining.search import SMALLEST_CHUNK, Codes, PositiveLists
from fastneg.threads import run_chunks


def find_twins(
    queries: Float32Array,
    vectors: Float32Array,
    longest: float,
    positives: PositiveLists,
    constant: Marks,
    items: Codes,
    scores: Float32Array,
) -> npt.NDArray[np.uint8]:
    """uint8 [B, W]: ``kernels.twins``' SAME_VECTOR, SAME_SCORE or NO_TWIN of each item.

    Equivalent slow code for an item and a query's positives::

        if any((vectors[item] == vectors[p]).all() for p in positives):
            SAME_VECTOR
        elif not constant and any(
            abs(score - score_of(p)) <= 2.0**-22 * norm(query) * norm(vectors[p]) for p in positives
        ):
            SAME_SCORE

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d], all items.
        longest: the length of the longest item.
        positives: the queries' lists.
        constant: bool [B], queries to which all items score the same: equal scores say nothing.
        items: int32 [B, W], -1 for none.
        scores: float32 [B, W], exact scores.
    """
    flags = np.empty(items.shape, np.uint8)
    queries, vectors, constant = frozen(queries), frozen(vectors), frozen(constant)
    items, scores = frozen(items), frozen(scores)

    def mark(a: int, b: int) -> None:
        mark_twins(
            queries[a:b], vectors, longest, positives.starts[a:b], positives.stops[a:b],
            positives.items, constant[a:b], items[a:b], scores[a:b], flags[a:b],
        )  # fmt: skip

    run_chunks(mark, len(items), smallest=SMALLEST_CHUNK)
    return flags
