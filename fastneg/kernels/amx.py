"""Matrix tiles of the processor (Intel AMX): 32 x 32 inner products of bfloat16 vectors at a time.

Eight tile registers hold 16 rows of 64 bytes each: four for sums, two for queries, two for items.
A step multiplies 32 queries by 32 items over 32 dimensions. The instructions exist on some
processors only, and the system must let a process use them: nothing here may be called, and no
kernel that calls it compiled, unless ``fastneg.mining.packed.HAS_AMX``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastneg.kernels.llvm import cgutils

STEP = 32  # dimensions of a tile of bfloat16
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()


def tile_shapes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [64], what ``begin_tiles`` takes: eight tiles of 16 rows of 64 bytes."""
    shapes = np.zeros(64, dtype=np.uint8)
    shapes[0] = 1
    shapes[16:32:2] = 64
    shapes[48:56] = 16
    return shapes


def _function(builder: Any, name: str, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(ir.VoidType(), arguments)
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, args[k]).data


def _begin_tiles(typing_context: Any, shapes: Any) -> Any:
    """Configure the tiles of this thread; shapes: uint8 [64] from ``tile_shapes``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_data(context, builder, signature, args, 0), _BYTES)
        builder.call(_function(builder, "llvm.x86.ldtilecfg", [_BYTES]), [place])
        return context.get_dummy_value()

    return types.void(shapes), generate


def _end_tiles(typing_context: Any) -> Any:
    """Give the tiles back."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(_function(builder, "llvm.x86.tilerelease", []), [])
        return context.get_dummy_value()

    return types.void(), generate


def _multiply(
    typing_context: Any, queries: Any, query: Any, panels: Any, panel: Any, steps: Any, start: Any,
    row: Any, out: Any,
) -> Any:  # fmt: skip
    """What 32 queries start with, plus their products with 32 items.

    Args:
        queries: uint16, bfloat16 bits [rows, 32 steps]; ``query`` is the index of the first entry.
        panels: uint16, panels of 16 items: ``steps`` blocks of [16, 16, 2], the last axis two
            neighbouring dimensions of an item; ``panel`` is the index of the first entry of two
            panels, one after the other.
        steps: int64, dimensions / 32.
        start: float32 [rows * 16], sixteen times what a row starts with; ``row`` is the first.
        out: float32 [32 * 32], a row per query.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, query, _, panel, steps, _, row, _ = args

        def at(k: int, index: Any) -> Any:
            place = builder.gep(_data(context, builder, signature, args, k), [index])
            return builder.bitcast(place, _BYTES)

        def call(name: str, *arguments: Any) -> None:
            function = _function(builder, "llvm.x86." + name, [a.type for a in arguments])
            builder.call(function, arguments)

        length = builder.mul(steps, _I64(2 * STEP))  # bytes of a query
        panel_size = builder.mul(steps, _I64(512))  # entries of a panel
        for tile in range(4):
            first = builder.mul(builder.add(row, _I64(16 * (tile // 2))), _I64(16))
            call("tileloadd64", _I8(tile), at(5, first), _I64(64))
        with cgutils.for_range(builder, steps) as loop:
            upper = builder.add(query, builder.mul(loop.index, _I64(STEP)))
            lower = builder.add(upper, builder.mul(steps, _I64(16 * STEP)))
            left = builder.add(panel, builder.mul(loop.index, _I64(512)))
            call("tileloadd64", _I8(4), at(0, upper), length)
            call("tileloadd64", _I8(5), at(0, lower), length)
            call("tileloadd64", _I8(6), at(2, left), _I64(64))
            call("tileloadd64", _I8(7), at(2, builder.add(left, panel_size)), _I64(64))
            for tile in range(4):
                call("tdpbf16ps", _I8(tile), _I8(4 + tile // 2), _I8(6 + tile % 2))
        for tile in range(4):
            place = at(7, _I64(512 * (tile // 2) + 16 * (tile % 2)))
            call("tilestored64", _I8(tile), place, _I64(128))
        return context.get_dummy_value()

    whole = types.int64
    return types.void(queries, whole, panels, whole, whole, start, whole, out), generate


def _reached(typing_context: Any, values: Any) -> Any:
    """Which fours of rows of ``multiply``'s 32 x 32 have a number without a sign: eight bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature, args, 0)
        words = ir.VectorType(_I32, 16)
        found = ir.Constant(_I64, 0)
        for four in range(8):
            signs = None
            for part in range(8):
                place = builder.gep(data, [_I64(128 * four + 16 * part)])
                some = builder.load(builder.bitcast(place, words.as_pointer()), align=4)
                signs = some if signs is None else builder.and_(signs, some)
            plain = builder.icmp_signed(">=", signs, ir.Constant(words, [0] * 16))
            bits = builder.bitcast(plain, ir.IntType(16))
            bit = builder.zext(builder.icmp_unsigned("!=", bits, ir.IntType(16)(0)), _I64)
            found = builder.or_(found, builder.shl(bit, _I64(four)))
        return found

    return types.uint64(values), generate


def _plain(typing_context: Any, values: Any, row: Any) -> Any:
    """Which of a row's 32 numbers have no sign, as the bits of a word."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = ir.VectorType(_I32, 32)
        data = _data(context, builder, signature, args, 0)
        place = builder.gep(data, [builder.mul(args[1], _I64(32))])
        line = builder.load(builder.bitcast(place, words.as_pointer()), align=4)
        plain = builder.icmp_signed(">=", line, ir.Constant(words, [0] * 32))
        return builder.zext(builder.bitcast(plain, _I32), _I64)

    return types.uint64(values, types.int64), generate


def _copy_row(typing_context: Any, values: Any, row: Any, out: Any, place: Any) -> Any:
    """out[32 place : 32 place + 32] = the 32 numbers of a row; float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        many = ir.VectorType(ir.FloatType(), 32).as_pointer()
        from_, to = (_data(context, builder, signature, args, k) for k in (0, 2))
        first = builder.bitcast(builder.gep(from_, [builder.mul(args[1], _I64(32))]), many)
        second = builder.bitcast(builder.gep(to, [builder.mul(args[3], _I64(32))]), many)
        builder.store(builder.load(first, align=4), second, align=4)
        return context.get_dummy_value()

    return types.void(values, types.int64, out, types.int64), generate


def _copy_step(typing_context: Any, values: Any, first: Any, out: Any, place: Any) -> Any:
    """out[place : place + 32] = values[first : first + 32]; uint16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = ir.VectorType(_I32, 16).as_pointer()
        from_, to = (
            builder.bitcast(
                builder.gep(_data(context, builder, signature, args, k), [args[k + 1]]), line
            )
            for k in (0, 2)
        )
        builder.store(builder.load(from_, align=2), to, align=2)
        return context.get_dummy_value()

    return types.void(values, types.int64, out, types.int64), generate


copy_row: Any = intrinsic(_copy_row)
copy_step: Any = intrinsic(_copy_step)
begin_tiles: Any = intrinsic(_begin_tiles)
end_tiles: Any = intrinsic(_end_tiles)
multiply: Any = intrinsic(_multiply)
reached: Any = intrinsic(_reached)
plain: Any = intrinsic(_plain)
