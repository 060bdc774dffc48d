"""The nearest list of each vector, found by matrix tiles and decided in float32.

Vectors and centroids are rounded to bfloat16 and multiplied in tiles (``amx.py``), 32 centroids by
32 vectors at a time. Of each group of 16 centroids only the largest product is kept. What rounding
costs is bounded by lengths, so that most groups cannot hold a vector's nearest list; the one or two
that can are multiplied again, by the very float32 operations of ``centroids.nearest_list``. The
answer is that kernel's, bit for bit, ties included.

Legend: B vectors, d width, K = 32 steps dimensions (d rounded up), L lists, G groups of 16 lists;
a block is 256 vectors.

Why nothing is lost: let x', c' be the rounded vectors, N = |c'| + |c - c'|, X = |x'| + |x - x'|,
and o the float32 -|c|^2 / 2 that both sides start from or add. Exactly,
|xc - x'c'| <= |x - x'| N + |x'| |c - c'|. A sum of products by tiles that starts at o is off by
2 (K + 16) u (X N + N^2 / 2) at most, the float32 sum by (K + 2) u (X N + N^2 / 2), u = 2^-24, and
numbers that are not normal cost less than K 2^-124. So the two differ by no more than

    E = |x - x'| N + |x'| |c - c'| + (2 K + 32) 2^-23 (X N + N^2 / 2) + K 2^-124,

which leaves K u / 2 and more for the float32 arithmetic of the bound itself. A group is left out
only if its largest product plus E lies below another's less E.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastneg.kernels.amx import begin_tiles, end_tiles, multiply, plain
from fastneg.kernels.fused_scan import round_bits
from fastneg.kernels.jit import kernel, part
from fastneg.kernels.llvm import cgutils, trailing_zeros, wide_vectors

LANES = 16
GROUP = 32  # centroids, and vectors, that are multiplied together
BLOCK = 256  # vectors, a multiple of NEAR
NEAR = 128  # of them meet each centroid from the nearest cache
_PAIRS = 8  # of a vector and a group, multiplied side by side
_WAITING = 1_024
_MOST = 1e37  # where no sum comes near the largest float32
_ABOVE = 1.001  # more than any rounding of the bound's own factors
_TINY = 2.0**-126

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_FUSED = ("contract",)  # as in ``panels``: a multiply and an add become one instruction


def _all_lanes(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_WORDS, [0] * LANES))


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, args[k]).data


def _at(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _write_tallest(
    typing_context: Any, products: Any, first: Any, tallest: Any, place: Any, stride: Any
) -> Any:
    """The largest of rows 0-15 and of rows 16-31 of the 32 x 32 products from ``first`` on.

    tallest[place : place + 32] and tallest[place + stride : place + stride + 32]; float32.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        products, tallest = (_data(context, builder, signature, args, k) for k in (0, 2))
        _, first, _, place, stride = args
        for half in range(2):
            for side in range(2):
                highest = None
                for row in range(LANES):
                    offset = word(GROUP * (LANES * half + row) + LANES * side)
                    pointer = _at(builder, products, builder.add(first, offset), _FLOATS)
                    line = builder.load(pointer, align=4)
                    if highest is None:
                        highest = line
                    else:
                        higher = builder.fcmp_ordered(">", line, highest)
                        highest = builder.select(higher, line, highest)
                to = builder.add(place, word(LANES * side))
                to = builder.add(to, builder.mul(stride, word(half)))
                builder.store(highest, _at(builder, tallest, to, _FLOATS), align=4)
        return context.get_dummy_value()

    size = types.int64
    return types.void(products, size, tallest, size, size), generate


def _meet_groups(
    typing_context: Any, vectors: Any, rows: Any, first: Any, width: Any, panels: Any, groups: Any,
    offsets: Any, highest: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Eight vectors, each with a group of its own, by the operations of ``nearest_list``.

    Args:
        vectors: float32 [B, d]; rows: int64, vector ``rows[first + i]`` meets
            group ``groups[first + i]``, i = 0 .. 7.
        width: d.
        panels: float32 [G * d * 16], offsets: float32 [G * 16].
        highest: int32 [8], written: the bits of the best product plus offset, made to order as
            integers; lanes: int32 [8], written: where in the group, of equal ones the lower.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, half = ir.IntType(64), ir.IntType(32)
        vectors, rows, panels, groups, offsets, highest, lanes = (
            _data(context, builder, signature, args, k) for k in (0, 1, 4, 5, 6, 7, 8)
        )
        first, width = args[2], args[3]
        size = builder.mul(width, word(LANES))
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        starts, places, offset_places, sums = [], [], [], []
        for i in range(_PAIRS):
            at = builder.add(first, word(i))
            row = builder.mul(builder.load(builder.gep(rows, [at])), width)
            group = builder.load(builder.gep(groups, [at]))
            starts.append(builder.gep(vectors, [row]))
            places.append(builder.gep(panels, [builder.mul(group, size)]))
            offset_places.append(builder.mul(group, word(LANES)))
            sums.append(cgutils.alloca_once_value(builder, zero))
        with cgutils.for_range(builder, width) as loop:
            down = builder.mul(loop.index, word(LANES))
            for i in range(_PAIRS):
                value = builder.load(builder.gep(starts[i], [loop.index]))
                line = builder.load(_at(builder, places[i], down, _FLOATS), align=4)
                product = builder.fmul(_all_lanes(builder, value), line, flags=_FUSED)
                total = builder.fadd(builder.load(sums[i]), product, flags=_FUSED)
                builder.store(total, sums[i])
        name = "llvm.vector.reduce.smax.v16i32"
        largest = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(half, [_WORDS]), name
        )
        for i in range(_PAIRS):
            pointer = _at(builder, offsets, offset_places[i], _FLOATS)
            total = builder.fadd(builder.load(sums[i]), builder.load(pointer, align=4))
            bits = builder.bitcast(total, _WORDS)
            signs = builder.ashr(bits, ir.Constant(_WORDS, [31] * LANES))
            turned = builder.and_(signs, ir.Constant(_WORDS, [0x7FFFFFFF] * LANES))
            bits = builder.xor(bits, turned)
            best = builder.call(largest, [bits])
            equal = builder.icmp_signed("==", bits, _all_lanes(builder, best))
            mask = builder.zext(builder.bitcast(equal, ir.IntType(LANES)), half)
            builder.store(best, builder.gep(highest, [word(i)]))
            lane = builder.cttz(mask, ir.IntType(1)(0))
            builder.store(lane, builder.gep(lanes, [word(i)]))
        return context.get_dummy_value()

    size = types.int64
    kinds = (vectors, rows, size, size, panels, groups, offsets, highest, lanes)
    return types.void(*kinds), generate


write_tallest: Any = intrinsic(_write_tallest)
meet_groups: Any = intrinsic(_meet_groups)


@part
def pack_block(
    vectors: Any, first: int, count: int, room: Any, packed: Any, totals: Any, losses: Any
) -> None:
    """Round vectors to bfloat16, in panels of 16 (as ``fused_scan.pack_items``).

    Args:
        vectors: float32 [B, d]; those from ``first`` on, ``count`` of them, at most a block.
        room: uint32 [32 K], scratch.
        packed: uint32 [128 K]: a panel's words of two neighbouring dimensions, 16 vectors each;
            written up to d and up to the last panel with a vector in it, the rest stays.
        totals, losses: float64 [256], written for those panels: squared lengths of the rounded
            vectors and of what rounding took.
    """
    width = vectors.shape[1]
    words = packed.shape[0] // BLOCK  # K / 2
    turned, size = room.view(np.float32), 32 * words
    for panel in range((count + LANES - 1) // LANES):
        low = panel * LANES
        members = min(LANES, count - low)
        if members < LANES:
            for c in range(width * LANES):
                turned[c] = 0.0
        for j in range(members):
            for c in range(width):
                turned[c * LANES + j] = vectors[first + low + j, c]
        for c in range(width * LANES):
            room[size + c] = round_bits(room[c]) << np.uint32(16)
        for c in range(width * LANES, 2 * ((width + 1) // 2) * LANES):
            room[size + c] = np.uint32(0)
        for pair in range((width + 1) // 2):
            base, to = size + pair * 2 * LANES, (panel * words + pair) * LANES
            for j in range(LANES):
                packed[to + j] = (room[base + j] >> np.uint32(16)) | room[base + LANES + j]
        for j in range(LANES):
            totals[low + j] = losses[low + j] = 0.0
        for c in range(width):
            for j in range(LANES):
                rounded = np.float64(turned[size + c * LANES + j])
                lost = np.float64(turned[c * LANES + j]) - rounded
                totals[low + j] += rounded * rounded
                losses[low + j] += lost * lost


@part
def _bound(
    totals: Any, losses: Any, steps: int, longest: float, slopes: Any, sizes: Any, unsafe: Any
) -> None:
    """The vectors' parts of E, rounded up; the bits of those whose sums could be too large."""
    share = _share(steps)
    unsafe[:] = np.uint64(0)
    for j in range(BLOCK):
        size, lost = np.sqrt(totals[j]), np.sqrt(losses[j])
        slopes[j] = np.float32((lost + share * (size + lost)) * _ABOVE + _TINY)
        sizes[j] = np.float32(size * _ABOVE + _TINY)
        if not (size + lost + longest) * longest < _MOST:
            unsafe[j // GROUP] |= np.uint64(1) << np.uint64(j % GROUP)


@part
def _share(steps: int) -> float:
    return (64.0 * steps + 32.0) * 2.0**-23


@part
def _raise_floors(
    tallest: Any, slopes: Any, sizes: Any, lengths: Any, residuals: Any, extras: Any, floors: Any
) -> None:
    """floors[j] = what the best float32 product of vector j reaches at the least."""
    for j in range(BLOCK):
        floors[j] = -np.inf
    for g in range(lengths.shape[0]):
        length, residual, extra = lengths[g], residuals[g], extras[g]
        for j in range(BLOCK):
            off = slopes[j] * length + sizes[j] * residual + extra
            low = tallest[g * BLOCK + j] - off
            floors[j] = low if low > floors[j] else floors[j]


@part
def _reach(
    tallest: Any, g: int, slopes: Any, sizes: Any, length: Any, residual: Any, extra: Any,
    floors: Any, reach: Any,
) -> None:  # fmt: skip
    """reach[j]: 0 or more where group ``g`` could hold the nearest list of vector j."""
    for j in range(BLOCK):
        off = slopes[j] * length + sizes[j] * residual + extra
        reach[j] = (tallest[g * BLOCK + j] + off) - floors[j]


@part
def _decide(
    waiting: int, vectors: Any, rows: Any, groups: Any, panels: Any, offsets: Any, highest: Any,
    lanes: Any, best: Any, first: int, lists: Any,
) -> None:  # fmt: skip
    """Let the pairs that wait compete for their vectors' lists; groups come in ascending order."""
    width = vectors.shape[1]
    for i in range(waiting, waiting + _PAIRS - 1):  # fills the last eight
        rows[i], groups[i] = rows[waiting - 1], groups[waiting - 1]
    for at in range(0, waiting, _PAIRS):
        meet_groups(vectors, rows, at, width, panels, groups, offsets, highest, lanes)
        for i in range(_PAIRS):
            row = rows[at + i]
            if highest[i] > best[row - first]:
                best[row - first] = highest[i]
                lists[row] = groups[at + i] * LANES + lanes[i]


@kernel
def bound_groups(
    norms: Any, losses: Any, steps: int, lengths: Any, residuals: Any, extras: Any
) -> None:
    """The groups' parts of E, rounded up.

    Args:
        norms, losses: float64 [L], of ``fused_scan.pack_queries``.
        steps: K / 32.
        lengths, residuals, extras: float32 [G], written: the largest |c'| + |c - c'|, the largest
            |c - c'|, and what E holds whatever the vector.
    """
    for g in range(lengths.shape[0]):
        length = residual = 0.0
        for one in range(g * LANES, min((g + 1) * LANES, norms.shape[0])):
            length = max(length, norms[one] + losses[one])
            residual = max(residual, losses[one])
        lengths[g] = np.float32(length * _ABOVE + _TINY)
        residuals[g] = np.float32(residual * _ABOVE + _TINY)
        lowest = 32.0 * steps * 2.0**-124
        extras[g] = np.float32((_share(steps) * length * length / 2 + lowest) * _ABOVE)


@kernel
def nearest_by_tiles(
    shapes: Any,
    vectors: Any,
    centroids: Any,
    steps: int,
    start: Any,
    lengths: Any,
    residuals: Any,
    extras: Any,
    longest: float,
    panels: Any,
    offsets: Any,
    packed: Any,
    products: Any,
    tallest: Any,
    lists: Any,
) -> None:
    """int32 [B]: for each vector the list whose float32 product plus offset is the largest.

    Exactly what ``centroids.nearest_list`` gives.

    Args:
        shapes: uint8 [64], of ``amx.tile_shapes``.
        vectors: float32 [B, d].
        centroids: uint16 [L' K], rounded, L' = L rounded up to 32, zero beyond L and d.
        steps: K / 32.
        start: float32 [16 L'], sixteen times each offset, -inf beyond L.
        lengths, residuals, extras: float32 [G], of ``bound_groups``.
        longest: the largest |c'| + |c - c'|.
        panels: float32 [G * d * 16], the centroids in panels of 16.
        offsets: float32 [16 G], -inf beyond L.
        packed: uint32 [128 K], zero beyond d; products: float32 [32 * 128]; scratch.
        tallest: float32 [2 ceil(L / 32) * 256], scratch.
        lists: int32 [B], the answer; of equal ones the lower.
    """
    wide_vectors()
    halves = packed.view(np.uint16)
    room = np.zeros(2 * LANES * 32 * steps, np.uint32)
    totals, losses = np.zeros(BLOCK), np.zeros(BLOCK)
    slopes, sizes = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    floors, reach = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    unsafe = np.empty(BLOCK // GROUP, np.uint64)
    best = np.empty(BLOCK, np.int32)
    rows = np.empty(_WAITING + GROUP + _PAIRS, np.int64)
    groups = np.empty(_WAITING + GROUP + _PAIRS, np.int64)
    highest, lanes = np.empty(_PAIRS, np.int32), np.empty(_PAIRS, np.int32)
    size = steps * 1_024  # entries of 32 vectors, and of 32 centroids
    begin_tiles(shapes)
    for first in range(0, vectors.shape[0], BLOCK):
        count = min(BLOCK, vectors.shape[0] - first)
        pack_block(vectors, first, count, room, packed, totals, losses)
        _bound(totals, losses, steps, longest, slopes, sizes, unsafe)
        for near in range(0, count, NEAR):
            for g in range(0, start.shape[0] // LANES, GROUP):
                for k in range(NEAR // GROUP):
                    own = products[k * GROUP * GROUP : (k + 1) * GROUP * GROUP]
                    multiply(
                        centroids, g * steps * 32, halves, (near // GROUP + k) * size, steps,
                        start, g, own,
                    )  # fmt: skip
                for k in range(NEAR // GROUP):
                    place = g // LANES * BLOCK + near + k * GROUP
                    write_tallest(products, k * GROUP * GROUP, tallest, place, BLOCK)
        _raise_floors(tallest, slopes, sizes, lengths, residuals, extras, floors)
        best[:] = np.iinfo(np.int32).min
        waiting: Any = 0
        for g in range(lengths.shape[0]):
            _reach(tallest, g, slopes, sizes, lengths[g], residuals[g], extras[g], floors, reach)
            for part_of in range((count + GROUP - 1) // GROUP):
                mask = plain(reach, part_of) | unsafe[part_of]
                while mask != np.uint64(0):
                    j = part_of * GROUP + trailing_zeros(mask)
                    mask &= mask - np.uint64(1)
                    if j < count:
                        rows[waiting], groups[waiting] = first + j, g
                        waiting += 1
                if waiting >= _WAITING:
                    _decide(
                        waiting, vectors, rows, groups, panels, offsets, highest, lanes, best,
                        first, lists,
                    )  # fmt: skip
                    waiting = 0
        if waiting > 0:
            _decide(
                waiting, vectors, rows, groups, panels, offsets, highest, lanes, best, first, lists
            )
    end_tiles()
