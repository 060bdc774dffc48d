"""Operations that Numba does not offer, as LLVM instructions, each with a plain twin in Python.

The instructions are used where Numba's internals are as we know them; the twin gives the same
results where a version of Numba lacks one (``jit.PLAIN``), and where nothing is compiled
(``jit.INTERPRETED``). ``operation`` chooses.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined, unused-ignore]
from numba.extending import intrinsic

from fastneg.kernels.jit import INTERPRETED, PLAIN, helper

cgutils: Any = None if PLAIN else importlib.import_module("numba.core.cgutils")
_arrayobj: Any = None if PLAIN else importlib.import_module("numba.np.arrayobj")


def operation(define: Callable[..., Any], twin: Callable[..., Any]) -> Any:
    """What kernels call: the instructions that ``define`` writes, or ``twin``.

    Args:
        define: as ``numba.extending.intrinsic`` takes it: (typing context, types) to (signature,
            code generator).
        twin: a function of the same arguments and the same results, which Numba can compile and
            Python can run.
    """
    if INTERPRETED:
        return twin
    return helper(twin) if PLAIN else intrinsic(define)


def _wide_vectors(typing_context: Any) -> Any:
    """Ask LLVM for the widest vectors the processor has, in the kernel that calls this.

    For AVX-512 LLVM prefers half of them, for fear of lower clocks; a loop of random words and
    gathers is a quarter faster with all of it. Where there is nothing wider, nothing changes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite knows the common attributes only; the set itself, where it is one, takes any
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def _ask(array: Any, index: Any, *, write: bool) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        place = builder.bitcast(builder.gep(view.data, [args[1]]), byte)
        # to be read or written, keep in all caches, data
        builder.call(function, [place, flag(int(write)), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]`` (one dimension); one not there is let be."""
    return _ask(array, index, write=False)


def _prefetch_to_write(typing_context: Any, array: Any, index: Any) -> Any:
    """``prefetch`` of a line that is going to be written."""
    return _ask(array, index, write=True)


def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """The place of the lowest set bit of a 64-bit word; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate


def _compress(
    typing_context: Any, masses: Any, place: Any, cell: Any, light: Any, ids: Any, sizes: Any,
    at: Any,
) -> Any:  # fmt: skip
    """Of masses[place : place + 8], those below ``cell`` (``light``) or not, one after the other.

    Their indices go to ids[at:], themselves to sizes[at:]; all arrays are uint64 of one dimension.
    Returns how many there are. Fast where ``HAS_COMPRESS``, correct everywhere.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, bit, many = ir.IntType(64), ir.IntType(1), ir.VectorType(ir.IntType(64), 8)
        _, place, cell, light, _, _, at = args

        def address(k: int, index: Any) -> Any:
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            return builder.gep(data, [index])

        def all_of(value: Any) -> Any:
            kind = ir.VectorType(value.type, 8)
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
            first = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), first)

        found = builder.load(builder.bitcast(address(0, place), many.as_pointer()), align=8)
        heavy = builder.icmp_unsigned(">=", found, all_of(cell))
        wanted = builder.xor(heavy, all_of(builder.trunc(light, bit)))
        numbers = builder.add(all_of(place), ir.Constant(many, list(range(8))))
        kind = ir.FunctionType(ir.VoidType(), [many, word.as_pointer(), wanted.type])
        name = "llvm.masked.compressstore.v8i64"
        store = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(store, [numbers, address(4, at), wanted])
        builder.call(store, [found, address(5, at), wanted])
        count = builder.ctpop(builder.bitcast(wanted, ir.IntType(8)))
        return builder.zext(count, word)

    word = types.uint64
    return types.int64(masses, types.int64, word, types.boolean, ids, sizes, types.int64), generate


def _borrowed(typing_context: Any, array: Any) -> Any:
    """The same array, whose references nobody counts: each count is an atomic instruction.

    For arguments only, which the caller keeps alive.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), generate


def _view(context: Any, builder: Any, kind: Any, data: Any, length: Any) -> Any:
    """An array of one dimension over memory that somebody else keeps alive."""
    view = context.make_array(kind)(context, builder)
    size = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
    )
    _arrayobj.populate_array(
        view, data=data, shape=[length], strides=[size], itemsize=size, meminfo=None
    )
    return view._getvalue()


def _at_address(context: Any, builder: Any, kind: Any, address: Any, length: Any) -> Any:
    pointer = context.get_data_type(kind.dtype).as_pointer()
    return _view(context, builder, kind, builder.inttoptr(address, pointer), length)


def _array_at(typing_context: Any, address: Any, length: Any, dtype: Any) -> Any:
    """A read-only array at an address; whoever gives the address keeps its memory alive."""
    kind = types.Array(dtype.dtype, 1, "C", readonly=True)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _at_address(context, builder, kind, args[0], args[1])

    return kind(types.int64, types.int64, dtype), generate


def _array_in(typing_context: Any, numbers: Any, place: Any, dtype: Any) -> Any:
    """``array_at`` the address ``numbers[place]``, of the length ``numbers[place + 1]``; int64."""
    kind = types.Array(dtype.dtype, 1, "C", readonly=True)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        first = builder.gep(array.data, [args[1]])
        second = builder.gep(first, [ir.IntType(64)(1)])
        return _at_address(context, builder, kind, builder.load(first), builder.load(second))

    return kind(numbers, types.int64, dtype), generate


def _flat(typing_context: Any, array: Any) -> Any:
    """All cells of a C-contiguous array in one dimension; only while the array itself lives."""
    kind = types.Array(array.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = context.make_array(signature.args[0])(context, builder, args[0])
        return _view(context, builder, kind, given.data, given.nitems)

    return kind(array), generate


def _do_nothing() -> None:
    """The twin of what changes speed only."""


def _ask_nothing(array: Any, index: Any) -> None:
    """The twin of a prefetch."""


def _same(array: Any) -> Any:
    return array


def _all_cells(array: Any) -> Any:
    return array.reshape(array.size)


def _lowest_bit(word: Any) -> Any:
    one, found = np.uint64(1), 0
    while found < 64 and (word >> np.uint64(found)) & one == np.uint64(0):
        found += 1
    return found


def _compress_one_by_one(
    masses: Any, place: Any, cell: Any, light: Any, ids: Any, sizes: Any, at: Any
) -> Any:
    count = 0
    for k in range(place, place + 8):
        if (masses[k] < cell) == light:
            ids[at + count] = k
            sizes[at + count] = masses[k]
            count += 1
    return count


def _pointer_to(typing_context: Any, address: Any) -> Any:
    """A number as a pointer, the way Numba's manual has it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


def _interpreted_array_at(address: Any, length: Any, dtype: Any) -> Any:
    if length == 0:
        return np.empty(0, dtype)
    size = int(length) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * size).from_address(int(address))
    array = np.frombuffer(memory, dtype)
    array.setflags(write=False)
    return array


if INTERPRETED:
    _plain_array_at: Any = _interpreted_array_at
else:
    _pointer: Any = intrinsic(_pointer_to)

    def _plain_array_at(address: Any, length: Any, dtype: Any) -> Any:
        return carray(_pointer(address), (length,), dtype)


_twin_array_at: Any = helper(_plain_array_at) if PLAIN else _plain_array_at


def _plain_array_in(numbers: Any, place: Any, dtype: Any) -> Any:
    return _twin_array_at(numbers[place], numbers[place + 1], dtype)


array_in: Any = operation(_array_in, _plain_array_in)
flat: Any = operation(_flat, _all_cells)
array_at: Any = operation(_array_at, _plain_array_at)
borrowed: Any = operation(_borrowed, _same)
compress: Any = operation(_compress, _compress_one_by_one)
trailing_zeros: Any = operation(_trailing_zeros, _lowest_bit)
wide_vectors: Any = operation(_wide_vectors, _do_nothing)
prefetch: Any = operation(_prefetch, _ask_nothing)
prefetch_to_write: Any = operation(_prefetch_to_write, _ask_nothing)
