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
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

_HERE = Path(__file__).resolve().parent


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


def kernel(function: Function) -> Function:
    """Compile an entry point: serial, ``nogil``, cached; array arguments must not overlap."""
    compiled: Any = numba.njit(
        nogil=True, error_model="numpy", boundscheck=False, pipeline_class=_NoAliasCompiler
    )(function)
    if CACHE_FOLDER is not None:
        compiled._cache = _KernelCache(function)  # type: ignore[no-untyped-call]
    return compiled  # type: ignore[no-any-return]


def helper(function: Function) -> Function:
    """Compile a function that kernels call; LLVM inlines it where that pays."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy", boundscheck=False)(function)
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


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]`` (one dimension, any index that exists)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        place = builder.bitcast(builder.gep(view.data, [args[1]]), byte)
        # to be read, keep in all caches, data
        builder.call(function, [place, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


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


def _has_compress() -> bool:
    try:
        return bool(binding.get_host_cpu_features().get("avx512f"))
    except RuntimeError:
        return False


HAS_COMPRESS = _has_compress()
compress: Any = intrinsic(_compress)


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


borrowed: Any = intrinsic(_borrowed)
trailing_zeros: Any = intrinsic(_trailing_zeros)
wide_vectors: Any = intrinsic(_wide_vectors)
prefetch: Any = intrinsic(_prefetch)
