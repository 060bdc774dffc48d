"""The compiler's flags and the cache of compiled kernels, here and nowhere else.

``kernel`` compiles an entry point: no GIL, NumPy's rules for division, no bounds checks, and the
promise to LLVM that array arguments do not overlap (Numba has no option for it; it more than
doubles the speed of a gather). Callers keep that promise. ``helper`` compiles a function that
kernels call.

Numba's own cache does not notice an edit to a helper in another file, so compiled kernels are
kept in a folder named by a hash of every source file of ``kernels/``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding, ir
from numba import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic
from numba.np import arrayobj

Function = TypeVar("Function", bound=Callable[..., Any])
_populate: Any = arrayobj.populate_array

_IMPORTED = Path(__file__).parent  # as the code of its modules names it
_HERE = _IMPORTED.resolve()


class _NoAliasCompiler(CompilerBase):  # type: ignore[misc, unused-ignore]
    """Numba's default pipeline, with array arguments declared not to overlap."""

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]  # type: ignore[no-untyped-call]


def source_fingerprint() -> str:
    """A hash of every source file in ``kernels/``: another hash, another cache."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _find_cache_folder() -> Path | None:
    fingerprint = f"fastneg-{source_fingerprint()}"
    asked = os.environ.get("NUMBA_CACHE_DIR")
    if asked:
        places = [Path(asked)]
    else:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        places = [_HERE / "__pycache__", user / "fastneg"]
    for place in places:
        if _writable(place / fingerprint):
            return place / fingerprint
    return None


CACHE_FOLDER = _find_cache_folder()


class _Locator(_CacheLocator):  # type: ignore[misc, unused-ignore]
    def __init__(self, py_func: Any, py_file: str) -> None:
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(CACHE_FOLDER)

    def get_source_stamp(self) -> str:
        return "named by the folder"

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        return cls(py_func, py_file)


class _CacheImpl(CompileResultCacheImpl):  # type: ignore[misc, unused-ignore]
    _locator_classes = [_Locator]  # noqa: RUF012  (Numba's own attribute)


class _KernelCache(FunctionCache):  # type: ignore[misc, unused-ignore]
    _impl_class = _CacheImpl


# nobody calls a kernel from C: a wrapper for that would only be compiled
_OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True,
}  # fmt: skip
_HELPER_OPTIONS: dict[str, Any] = {**_OPTIONS, "nopython": True, "no_cpython_wrapper": True}


class _Helper(CPUDispatcher):  # type: ignore[misc, unused-ignore]
    """A function that kernels call, compiled without a wrapper for calls from Python.

    The wrapper takes as long to compile as a small helper. A call from Python finds nothing in the
    dispatcher's own table, and gets the same function compiled on its own.
    """

    _for_python: Any = None

    def add_overload(self, compiled: Any) -> None:
        self.overloads[tuple(compiled.signature.args)] = compiled

    def _compile_for_args(self, *args: Any, **kws: Any) -> Any:
        if self._for_python is None:
            self._for_python = numba.njit(**_OPTIONS)(self.py_func)
        return self._for_python._compile_for_args(*args, **kws)


def kernel(function: Function, *, work: Callable[..., Any] | None = None) -> Function:
    """Compile an entry point: serial, ``nogil``, cached; array arguments must not overlap.

    Only what stands in ``kernels/`` is cached: the folder's name knows of no other edits.

    Args:
        work: the function that matters, where it is not this one.
    """
    compiled: Any = numba.njit(**_OPTIONS, pipeline_class=_NoAliasCompiler)(function)
    source: Any = function if work is None else work
    if CACHE_FOLDER is not None and Path(source.__code__.co_filename).parent == _IMPORTED:
        compiled._cache = _KernelCache(function)  # type: ignore[no-untyped-call]
    return compiled  # type: ignore[no-any-return]


def helper(function: Function) -> Function:
    """Compile a function that kernels call; LLVM inlines it where that pays."""
    compiled: Any = _Helper(function, targetoptions=_HELPER_OPTIONS)
    return compiled  # type: ignore[no-any-return]


def part(function: Function) -> Function:
    """A ``helper`` too long to be inlined for sure; its array arguments must not overlap."""
    compiled: Any = _Helper(
        function, targetoptions=_HELPER_OPTIONS, pipeline_class=_NoAliasCompiler
    )
    return compiled  # type: ignore[no-any-return]


def _wide_vectors(typing_context: Any) -> Any:
    """Ask LLVM for the widest vectors the processor has, in the kernel that calls this.

    For AVX-512 LLVM prefers half of them, for fear of lower clocks; a loop of random words and
    gathers is a quarter faster with all of it. Where there is nothing wider, nothing changes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite knows the common attributes only; the set itself takes any
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
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


def _has(feature: str) -> bool:
    try:
        return bool(binding.get_host_cpu_features().get(feature))
    except RuntimeError:
        return False


HAS_COMPRESS = _has("avx512f")
HAS_BFLOAT16 = _has("avx512bf16")  # products of bfloat16 pairs: torch's are then twice as fast


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
    _populate(view, data=data, shape=[length], strides=[size], itemsize=size, meminfo=None)
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


array_in: Any = intrinsic(_array_in)
flat: Any = intrinsic(_flat)
array_at: Any = intrinsic(_array_at)
borrowed: Any = intrinsic(_borrowed)
compress: Any = intrinsic(_compress)
trailing_zeros: Any = intrinsic(_trailing_zeros)
wide_vectors: Any = intrinsic(_wide_vectors)
prefetch: Any = intrinsic(_prefetch)
prefetch_to_write: Any = intrinsic(_prefetch_to_write)
