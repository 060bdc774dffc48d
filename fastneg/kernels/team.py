"""Kernels on a team of threads that somebody else keeps: an OpenMP runtime, by its own entry.

Between two operations of a training step, threads of fastneg's own pool come too late: they have to
be woken, and the threads of the library that did the last operation still spin on their cores,
waiting for the next one. This hands them the work: ``GOMP_parallel(function, data, threads, 0)`` is
how compiled code enters a parallel region (GCC's libgomp, and LLVM's and Intel's for such code).

The caller gives the address: that of the runtime whose threads are awake.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastneg.kernels.jit import INTERPRETED, PLAIN, kernel
from fastneg.kernels.llvm import cgutils

enter: Any = None  # what enters a team; every kernel that is made here has its own

_WORD, _POINTER, _NUMBER = ir.IntType(64), ir.IntType(8).as_pointer(), ir.IntType(32)
_NEXT, _FAILED, _STOP, _CHUNK, _ARGUMENTS = range(5)  # what a team's threads share


def team_kernel(work: Any) -> Callable[..., bool] | None:
    """``work`` in chunks on a team of threads; None where Numba's internals are not to be had.

    Args:
        work: a kernel whose last two arguments are ``start`` and ``stop``: it works on those rows
            only, what it does does not depend on how they are cut, and it raises nothing, unless
            its memory runs out.

    Returns:
        A kernel ``spread(address, threads, chunk, arguments, start, stop)``: it calls
        ``work(*arguments, i, min(i + chunk, stop))`` for i = start, start + chunk, ... on up to
        ``threads`` threads, each taking the next chunk once it is done with one. ``address`` is
        that of ``GOMP_parallel``. It returns once all threads have, False if memory ran out in one.
    """
    if INTERPRETED or PLAIN:
        return None

    def enter_team(
        typing_context: Any, address: Any, threads: Any, chunk: Any, arguments: Any, start: Any,
        stop: Any,
    ) -> Any:  # fmt: skip
        given = (*arguments.types, types.int64, types.int64)
        dispatcher: Any = types.Dispatcher
        returned = dispatcher(work).get_call_type(typing_context, given, {}).return_type

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            compiled = work.overloads[given]
            context.add_linking_libs([compiled.library])
            address, threads, chunk, packed, start, stop = args
            shared = ir.LiteralStructType([_WORD, _WORD, _WORD, _WORD, packed.type])
            place = cgutils.alloca_once(builder, shared)
            for number, value in (
                (_NEXT, start), (_FAILED, _WORD(0)), (_STOP, stop), (_CHUNK, chunk),
                (_ARGUMENTS, packed),
            ):  # fmt: skip
                builder.store(value, cgutils.gep_inbounds(builder, place, 0, number))
            body = _body(context, builder.module, shared, compiled, given, returned)
            kind = ir.FunctionType(
                ir.VoidType(), [body.type, _POINTER, _NUMBER, _NUMBER]
            ).as_pointer()
            builder.call(
                builder.inttoptr(address, kind),
                [body, builder.bitcast(place, _POINTER), builder.trunc(threads, _NUMBER),
                 _NUMBER(0)],
            )  # fmt: skip
            failed = builder.load(cgutils.gep_inbounds(builder, place, 0, _FAILED))
            return builder.icmp_unsigned("==", failed, _WORD(0))

        word = types.int64
        return types.boolean(word, word, word, arguments, word, word), generate

    # the cache knows kernels by their names, and all of these have one body; no closure: what one
    # holds is part of a cache's key, and differs from process to process
    function = work.py_func
    name = f"{function.__module__}.{function.__qualname__}".replace(".", "_") + "_on_team"
    own = {"enter": intrinsic(enter_team), "__name__": __name__}
    spread: Any = FunctionType(_spread.__code__, own, name)
    spread.__qualname__ = name
    made: Callable[..., bool] = kernel(spread, work=function)
    return made


def _spread(address: int, threads: int, chunk: int, arguments: Any, start: int, stop: int) -> bool:
    done: bool = enter(address, threads, chunk, arguments, start, stop)
    return done


def _body(context: Any, module: Any, shared: Any, compiled: Any, given: Any, returned: Any) -> Any:
    """The function that every thread of the team runs, over what they share."""
    kind = ir.FunctionType(ir.VoidType(), [_POINTER])
    body = ir.Function(module, kind, module.get_unique_name("team_body"))
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block("entry"))
    place = builder.bitcast(body.args[0], shared.as_pointer())

    def at(number: int) -> Any:
        return cgutils.gep_inbounds(builder, place, 0, number)

    stop, chunk = builder.load(at(_STOP)), builder.load(at(_CHUNK))
    arguments = cgutils.unpack_tuple(builder, builder.load(at(_ARGUMENTS)))
    work = context.declare_function(module, compiled.fndesc)
    again, one, end = (body.append_basic_block(name) for name in ("again", "one", "end"))
    builder.branch(again)
    builder.position_at_end(again)
    first = builder.atomic_rmw("add", at(_NEXT), chunk, "monotonic")
    builder.cbranch(builder.icmp_signed("<", first, stop), one, end)
    builder.position_at_end(one)
    last = builder.add(first, chunk)
    last = builder.select(builder.icmp_signed("<", last, stop), last, stop)
    status, _ = context.call_conv.call_function(
        builder, work, returned, given, [*arguments, first, last]
    )
    with builder.if_then(status.is_error, likely=False):
        builder.store(_WORD(1), at(_FAILED))
    builder.branch(again)
    builder.position_at_end(end)
    builder.ret_void()
    return body
