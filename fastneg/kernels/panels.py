"""Inner products of a few queries with many items, and the choice among them, without a matrix.

Items lie in panels of sixteen, one coordinate after the other, so that a vector register holds one
coordinate of sixteen items. Eight queries meet two panels at a time: sixteen running sums that
never leave the registers. What comes out is a short line of products per query, still in the
nearest cache when ``take`` chooses from it.

The vector operations are written out (LLVM IR of sixteen lanes): in a few instructions where the
processor has AVX-512, in more of them, with the same results up to rounding, everywhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import cgutils, operation

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

LANES = 16
TILE = 8  # queries that meet a panel together

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_CODES = ir.VectorType(ir.IntType(32), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_FUSED = ("contract",)  # a multiply and an add may become one instruction


def _all_lanes(builder: Any, value: Any) -> Any:
    kind = ir.VectorType(value.type, LANES)
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_CODES, [0] * LANES))


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value=value).data


def _multiplier(num_panels: int) -> Any:
    """TILE queries times ``num_panels`` panels."""

    def multiply(
        typing: Any, tile: Any, width: Any, panels: Any, place: Any, lines: Any, column: Any,
        stride: Any,
    ) -> Any:  # fmt: skip
        """lines[i * stride + column + lane] = <tile[i * width :], item ``lane`` of the panels>."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, width, _, place, _, column, stride = args
            tile, panels, lines = (
                _data(context, builder, signature.args[k], args[k]) for k in (0, 2, 4)
            )
            step = ir.Constant(width.type, LANES)
            zero = ir.Constant(_FLOATS, [0.0] * LANES)
            sums = [
                [cgutils.alloca_once_value(builder, zero) for _ in range(num_panels)]
                for _ in range(TILE)
            ]
            whole = builder.mul(width, step)
            with cgutils.for_range(builder, width) as loop:
                parts = []
                at = builder.add(place, builder.mul(loop.index, step))
                for _ in range(num_panels):
                    pointer = builder.bitcast(builder.gep(panels, [at]), _FLOATS.as_pointer())
                    parts.append(builder.load(pointer, align=4))
                    at = builder.add(at, whole)
                row = loop.index
                for i in range(TILE):
                    value = _all_lanes(builder, builder.load(builder.gep(tile, [row])))
                    row = builder.add(row, width)
                    for part, total in zip(parts, sums[i], strict=True):
                        product = builder.fmul(value, part, flags=_FUSED)
                        builder.store(
                            builder.fadd(builder.load(total), product, flags=_FUSED), total
                        )
            at = column
            for i in range(TILE):
                out = at
                for total in sums[i]:
                    pointer = builder.bitcast(builder.gep(lines, [out]), _FLOATS.as_pointer())
                    builder.store(builder.load(total), pointer, align=4)
                    out = builder.add(out, step)
                at = builder.add(at, stride)
            return context.get_dummy_value()

        size = types.int64
        return types.void(tile, size, panels, size, lines, size, size), generate

    def multiply_one_by_one(
        tile: Any, width: Any, panels: Any, place: Any, lines: Any, column: Any, stride: Any
    ) -> None:
        for i in range(TILE):
            for panel in range(num_panels):
                for lane in range(LANES):
                    total = np.float32(0.0)
                    for c in range(width):
                        at = place + (panel * width + c) * LANES + lane
                        total += tile[i * width + c] * panels[at]
                    lines[i * stride + column + panel * LANES + lane] = total

    return operation(multiply, multiply_one_by_one)


def _take(
    typing: Any, line: Any, place: Any, left: Any, bound: Any, codes: Any, first: Any,
    to_codes: Any, to_scores: Any, at: Any,
) -> Any:  # fmt: skip
    """Of line[place : place + min(left, LANES)], those at ``bound`` or above, one after the other.

    Their codes (codes[first + lane]) go to to_codes[at:], themselves to to_scores[at:]; LANES
    entries there may be overwritten. Returns how many there are.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, place, left, bound, _, first, _, _, at = args
        line, codes, to_codes, to_scores = (
            _data(context, builder, signature.args[k], args[k]) for k in (0, 4, 6, 7)
        )

        def address(data: Any, index: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

        values = builder.load(address(line, place, _FLOATS), align=4)
        high = builder.fcmp_ordered(">=", values, _all_lanes(builder, bound))
        lanes = ir.Constant(_CODES, list(range(LANES)))
        inside = builder.icmp_signed(
            "<", lanes, _all_lanes(builder, builder.trunc(left, ir.IntType(32)))
        )
        wanted = builder.and_(high, inside)
        ids = builder.load(address(codes, first, _CODES), align=4)
        for vector, kind, name, data in (  # no branch: whether any is taken is a fair coin
            (values, _FLOATS, "v16f32", to_scores),
            (ids, _CODES, "v16i32", to_codes),
        ):
            full = f"llvm.experimental.vector.compress.{name}"
            function = builder.module.globals.get(full) or ir.Function(
                builder.module, ir.FunctionType(kind, [kind, _BITS, kind]), full
            )
            packed = builder.call(function, [vector, wanted, ir.Constant(kind, ir.Undefined)])
            builder.store(packed, address(data, at, kind), align=4)
        count = builder.ctpop(builder.bitcast(wanted, ir.IntType(LANES)))
        return builder.zext(count, ir.IntType(64))

    size = types.int64
    return size(line, size, size, types.float32, codes, size, to_codes, to_scores, size), generate


def _extremes(typing: Any, values: Any, count: Any) -> Any:
    """The lowest and the highest of float32 values[:count], count 1 or more; no NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, count = _data(context, builder, signature.args[0], args[0]), args[1]
        first = builder.load(data)
        ends = [cgutils.alloca_once_value(builder, _all_lanes(builder, first)) for _ in range(2)]
        step = ir.Constant(count.type, LANES)

        def meet(values: Any) -> None:
            for end, sign in zip(ends, ("<", ">"), strict=True):
                held = builder.load(end)
                better = builder.fcmp_ordered(sign, values, held)
                builder.store(builder.select(better, values, held), end)

        with cgutils.for_range(builder, builder.udiv(count, step)) as loop:
            place = builder.gep(data, [builder.mul(loop.index, step)])
            meet(builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4))
        rest = builder.urem(count, step)
        with cgutils.for_range(builder, rest) as loop:
            place = builder.sub(count, builder.add(loop.index, ir.Constant(count.type, 1)))
            meet(_all_lanes(builder, builder.load(builder.gep(data, [place]))))
        out = []
        for end, sign in zip(ends, ("<", ">"), strict=True):
            held = builder.load(end)
            lanes = [builder.extract_element(held, ir.IntType(32)(i)) for i in range(LANES)]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [
                    builder.select(builder.fcmp_ordered(sign, a, b), a, b)
                    for a, b in zip(lanes[:half], lanes[half:], strict=True)
                ]
            out.append(lanes[0])
        return context.make_tuple(builder, signature.return_type, out)

    pair = types.UniTuple(types.float32, 2)  # type: ignore[no-untyped-call]
    return pair(values, types.int64), generate


def _lowest_and_highest(values: Any, count: Any) -> Any:
    low = high = values[0]
    for k in range(1, count):
        if values[k] < low:
            low = values[k]
        if values[k] > high:
            high = values[k]
    return low, high


def _take_one_by_one(
    line: Any, place: Any, left: Any, bound: Any, codes: Any, first: Any, to_codes: Any,
    to_scores: Any, at: Any,
) -> Any:  # fmt: skip
    count = 0
    for lane in range(min(left, LANES)):
        if line[place + lane] >= bound:
            to_codes[at + count] = codes[first + lane]
            to_scores[at + count] = line[place + lane]
            count += 1
    return count


extremes: Any = operation(_extremes, _lowest_and_highest)
_multiply_two: Any = _multiplier(2)
_multiply_one: Any = _multiplier(1)
take: Any = operation(_take, _take_one_by_one)


@helper
def multiply_tile(
    tile: Floats, width: int, panels: Floats, first: int, count: int, lines: Floats, stride: int
) -> None:
    """Products of TILE queries with ``count`` panels from panel ``first`` on.

    Args:
        tile: float32 [TILE * d], one query after the other.
        width: d.
        panels: float32 [P * d * LANES].
        first: a panel.
        count: of panels.
        lines: float32 [TILE * stride]; query i's products start at i * stride.
        stride: count * LANES or more.
    """
    size = width * LANES
    pair = 0
    while pair + 2 <= count:
        _multiply_two(tile, width, panels, (first + pair) * size, lines, pair * LANES, stride)
        pair += 2
    if pair < count:
        _multiply_one(tile, width, panels, (first + pair) * size, lines, pair * LANES, stride)


@kernel
def pack_panels(
    vectors: Floats, order: Codes, borders: Ints, panel_borders: Ints, first: int, panels: Floats
) -> None:
    """Copy the items of lists into their panels; what a last panel has too much is zero.

    Args:
        vectors: float32 [N, d].
        order: int32 [N], items list by list.
        borders: int64 [l + 1], where the lists start in ``order``.
        panel_borders: int64 [l + 1], the lists' first panels.
        first: the panel that ``panels`` starts with.
        panels: float32 [P * d * LANES].
    """
    width = vectors.shape[1]
    size = width * LANES
    for one in range(borders.size - 1):
        start, stop = borders[one], borders[one + 1]
        for panel in range(panel_borders[one], panel_borders[one + 1]):
            base = (panel - first) * size
            begin = start + (panel - panel_borders[one]) * LANES
            for lane in range(LANES):
                if begin + lane < stop:
                    row = vectors[order[begin + lane]]
                    for c in range(width):
                        panels[base + c * LANES + lane] = row[c]
                else:
                    for c in range(width):
                        panels[base + c * LANES + lane] = 0.0
