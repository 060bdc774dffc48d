"""An inner product in sixteen lanes, as vector instructions with a fixed order of summation.

LLVM vectorises a sum only when it may reorder it, and then the order depends on the processor and
on the code around it. Here the vector operations are written out, so that every processor adds the
same numbers in the same order: wide ones in a few instructions, narrow ones in more of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from fastneg.kernels.jit import helper
from fastneg.kernels.llvm import cgutils, operation

LANES = 16


def _sum_whole(typing: Any, left: Any, right: Any) -> Any:
    """float64: lane sums over the whole groups of LANES of two float32 vectors, added in a tree."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value=value)
            for kind, value in zip(signature.args, args, strict=True)
        ]
        floats = ir.VectorType(ir.FloatType(), LANES)
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(doubles, None))
        length = cgutils.unpack_tuple(builder, arrays[0].shape)[0]
        lanes = ir.Constant(length.type, LANES)
        with cgutils.for_range(builder, builder.udiv(length, lanes)) as loop:
            place = builder.mul(loop.index, lanes)
            parts = []
            for array in arrays:
                pointer = builder.bitcast(builder.gep(array.data, [place]), floats.as_pointer())
                parts.append(builder.fpext(builder.load(pointer, align=4), doubles))
            builder.store(builder.fadd(builder.load(total), builder.fmul(*parts)), total)
        vector = builder.load(total)
        places = [ir.Constant(ir.IntType(32), i) for i in range(LANES)]
        sums = [builder.extract_element(vector, place) for place in places]
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [builder.fadd(sums[i], sums[i + half]) for i in range(half)]
        return sums[0]

    return types.float64(left, right), generate


@helper
def fold(sums: Any) -> float:
    """The sum of the lanes' sums, added in a tree; they are overwritten."""
    half = sums.size // 2
    while half > 0:
        for i in range(half):
            sums[i] += sums[i + half]
        half //= 2
    return float(sums[0])


def _add_in_lanes(left: Any, right: Any) -> Any:
    sums = np.zeros(LANES)
    for c in range(left.size // LANES * LANES):
        sums[c % LANES] += np.float64(left[c]) * np.float64(right[c])
    return fold(sums)


_whole: Any = operation(_sum_whole, _add_in_lanes)


@helper
def inner_product(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """float64: the inner product of two C-contiguous float32 vectors of one length."""
    total: float = _whole(left, right)
    for c in range(left.size - left.size % LANES, left.size):
        total += np.float64(left[c]) * np.float64(right[c])
    return total
