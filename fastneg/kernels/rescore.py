"""Exact scores of one query with many items: ``selection.exact_score``, in a quarter of its time.

The same numbers are added in the same order, so the results are the same to the last bit: sixteen
lanes of float64, halved again and again. The query is widened once for all its items, and since
the product of two float32 is exact in float64, a fused multiply-add rounds as the two would apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from fastneg.kernels.jit import helper
from fastneg.kernels.lanes import LANES, fold
from fastneg.kernels.llvm import cgutils, operation, prefetch

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_AHEAD = 12  # vectors asked for before they are scored


def _sum_whole(typing: Any, query: Any, vectors: Any, start: Any, width: Any) -> Any:
    """Over whole groups of lanes: float64 query [d] times float32 vectors[start : start + d]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        query, vectors = (
            context.make_array(signature.args[k])(context, builder, value=args[k]).data
            for k in (0, 1)
        )
        start, width = args[2:]
        floats = ir.VectorType(ir.FloatType(), LANES)
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(doubles, [0.0] * LANES))
        lanes = ir.Constant(width.type, LANES)
        with cgutils.for_range(builder, builder.udiv(width, lanes)) as loop:
            place = builder.mul(loop.index, lanes)
            wide = builder.bitcast(builder.gep(query, [place]), doubles.as_pointer())
            narrow = builder.gep(vectors, [builder.add(start, place)])
            narrow = builder.bitcast(narrow, floats.as_pointer())
            item = builder.fpext(builder.load(narrow, align=4), doubles)
            product = builder.fmul(builder.load(wide, align=8), item, flags=("contract",))
            added = builder.fadd(builder.load(total), product, flags=("contract",))
            builder.store(added, total)
        sums, size = builder.load(total), LANES
        while size > 1:
            size //= 2
            nothing = ir.Constant(sums.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    sums,
                    nothing,
                    ir.Constant(
                        ir.VectorType(ir.IntType(32), size), list(range(first, first + size))
                    ),
                )
                for first in (0, size)
            ]
            sums = builder.fadd(*halves)
        return builder.extract_element(sums, ir.IntType(32)(0))

    return types.float64(query, vectors, types.int64, types.int64), generate


def _add_in_lanes(query: Any, vectors: Any, start: Any, width: Any) -> Any:
    sums = np.zeros(LANES)
    for c in range(width // LANES * LANES):
        sums[c % LANES] += query[c] * np.float64(vectors[start + c])
    return fold(sums)


_whole: Any = operation(_sum_whole, _add_in_lanes)


@helper
def exact_scores(
    query: Floats, items: Floats, codes: Codes, count: int, wide: Doubles, scores: Floats
) -> None:
    """scores[c] = the exact inner product with item codes[c], rounded once; never -0.0.

    Args:
        query: float32 [d].
        items: float32 [N * d], one item after the other.
        codes: integers, of items.
        count: how many of them.
        wide: float64 [d], used up.
        scores: float32, the answer.
    """
    width = query.size
    whole = width - width % LANES
    for k in range(width):
        wide[k] = np.float64(query[k])
    for c in range(count):
        if c + _AHEAD < count:
            ahead = np.int64(codes[c + _AHEAD]) * width
            for k in range(0, width, LANES):
                prefetch(items, ahead + k)
        start = np.int64(codes[c]) * width
        total = _whole(wide, items, start, width)
        for k in range(whole, width):
            total += wide[k] * np.float64(items[start + k])
        scores[c] = np.float32(total) + np.float32(0.0)
