"""The compiler's flags and the cache of compiled kernels, here and nowhere else.

``kernel`` compiles an entry point: no GIL, NumPy's rules for division, no bounds checks, and the
promise to LLVM that array arguments do not overlap (Numba has no option for it; it more than
doubles the speed of a gather). Callers keep that promise. ``helper`` compiles a function that
kernels call.

Numba's own cache does not notice an edit to a helper in another file, so compiled kernels are
kept in a folder named by a hash of every source file of ``kernels/``, of Numba's version (two
versions would overwrite each other's files) and of the settings of Numba that change machine code
(``NUMBA_BOUNDSCHECK``, ``NUMBA_OPT``, ``NUMBA_DEBUGINFO``).

Most of this uses parts of Numba that are not its public interface (``PRIVATE``,
``OF_DISPATCHERS``). Where a version of Numba lacks one of them, ``PLAIN`` is True: one warning,
and every kernel is compiled by ``njit(nogil=True, cache=True)``, with plain loops for the
operations of ``llvm.py``. Results are the same, speed is not. With ``NUMBA_DISABLE_JIT=1`` nothing
is compiled (``INTERPRETED``): kernels run as Python, for debuggers and coverage.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import binding

Function = TypeVar("Function", bound=Callable[..., Any])

# What is used of Numba and llvmlite beside their documented interfaces.
PRIVATE: dict[str, tuple[str, ...]] = {
    "numba.core.base": (
        "BaseContext.add_linking_libs", "BaseContext.declare_function",
        "BaseContext.get_abi_sizeof", "BaseContext.get_constant", "BaseContext.get_data_type",
        "BaseContext.get_dummy_value", "BaseContext.make_array", "BaseContext.make_tuple",
    ),
    "numba.core.callconv": ("CPUCallConv.call_function",),
    "numba.core.caching": ("CompileResultCacheImpl", "FunctionCache", "_CacheLocator"),
    "numba.core.cgutils": (
        "_StructProxy._getvalue", "alloca_once", "alloca_once_value", "for_range", "gep_inbounds",
        "unpack_tuple",
    ),
    "numba.core.compiler": (
        "CompileResult.fndesc", "CompileResult.library", "CompileResult.signature", "CompilerBase",
        "DefaultPassBuilder.define_nopython_pipeline", "Flags.noalias",
    ),
    "numba.core.cpu": (
        "CPUContext.call_conv", "CPUTargetOptions.no_cfunc_wrapper",
        "CPUTargetOptions.no_cpython_wrapper",
    ),
    "numba.core.registry": ("CPUDispatcher._compile_for_args", "CPUDispatcher.add_overload"),
    "numba.core.types": ("Dispatcher.get_call_type",),
    "numba.np.arrayobj": ("populate_array",),
}  # fmt: skip
OF_DISPATCHERS = ("overloads", "_cache")  # what no class has, only what ``njit`` returns


def _nothing() -> None:
    """What no call compiles."""


def missing_internals() -> list[str]:
    """The names of ``PRIVATE`` and of ``OF_DISPATCHERS`` that this version of Numba lacks."""
    missing = []
    for module, names in PRIVATE.items():
        try:
            found = importlib.import_module(module)
        except ImportError:
            missing.append(module)
            continue
        for name in names:
            try:
                functools.reduce(getattr, name.split("."), found)
            except AttributeError:
                missing.append(f"{module}.{name}")
    if not INTERPRETED:
        made = numba.njit(_nothing)
        missing += [f"njit's {name}" for name in OF_DISPATCHERS if not hasattr(made, name)]
    return missing


INTERPRETED = bool(getattr(numba.config, "DISABLE_JIT", False))
_MISSING = missing_internals()
PLAIN = bool(_MISSING)
if PLAIN:
    warnings.warn(
        f"fastneg: Numba {numba.__version__} lacks {', '.join(_MISSING)}; kernels are compiled by "
        "plain njit(cache=True): the same results, more slowly. Report it with the output of "
        "`fastneg doctor`, or install another version of Numba",
        RuntimeWarning,
        stacklevel=2,
    )

_IMPORTED = Path(__file__).parent  # as the code of its modules names it
_HERE = _IMPORTED.resolve()
_SETTINGS = ("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT")  # of Numba, that change machine code


def source_fingerprint() -> str:
    """A hash of ``kernels/``, of Numba's version and of its settings; it names the cache."""
    digest = hashlib.blake2b(numba.__version__.encode() + b"\0", digest_size=8)
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for name in _SETTINGS:
        digest.update(f"{name}={getattr(numba.config, name, None)}\0".encode())
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
_PUBLIC: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def _compilers() -> tuple[Any, Any, Any]:
    """(cache, helpers' dispatcher, pipeline without overlap), made of Numba's internals."""
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.registry import CPUDispatcher

    class NoAliasCompiler(CompilerBase):  # type: ignore[misc, unused-ignore]
        """Numba's default pipeline, with array arguments declared not to overlap."""

        def define_pipelines(self) -> list[Any]:
            self.state.flags.noalias = True
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]  # type: ignore[no-untyped-call]

    class Locator(_CacheLocator):  # type: ignore[misc, unused-ignore]
        def __init__(self, py_func: Any, py_file: str) -> None:
            self._line = py_func.__code__.co_firstlineno
            self._py_file = py_file  # Numba's warning of what it cannot cache reads it

        def get_cache_path(self) -> str:
            return str(CACHE_FOLDER)

        def get_source_stamp(self) -> str:
            return "named by the folder"

        def get_disambiguator(self) -> str:
            return str(self._line)

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Locator:
            return cls(py_func, py_file)

    class CacheImpl(CompileResultCacheImpl):  # type: ignore[misc, unused-ignore]
        _locator_classes = [Locator]  # noqa: RUF012  (Numba's own attribute)

    class KernelCache(FunctionCache):  # type: ignore[misc, unused-ignore]
        _impl_class = CacheImpl

    class Helper(CPUDispatcher):  # type: ignore[misc, unused-ignore]
        """A function that kernels call, compiled without a wrapper for calls from Python.

        The wrapper takes as long to compile as a small helper. A call from Python finds nothing in
        the dispatcher's own table, and gets the same function compiled on its own.
        """

        _for_python: Any = None

        def add_overload(self, compiled: Any) -> None:
            self.overloads[tuple(compiled.signature.args)] = compiled

        def _compile_for_args(self, *args: Any, **kws: Any) -> Any:
            if self._for_python is None:
                self._for_python = numba.njit(**_PUBLIC)(self.py_func)
            return self._for_python._compile_for_args(*args, **kws)

    return KernelCache, Helper, NoAliasCompiler


_made: tuple[Any, Any, Any] = (None, None, None) if PLAIN else _compilers()
_KernelCache, _Helper, _NoAliasCompiler = _made
_WITHOUT_C = {**_PUBLIC, "no_cfunc_wrapper": True}  # no kernel is called from C
_OF_HELPERS = {**_WITHOUT_C, "nopython": True, "no_cpython_wrapper": True}


def _as_python(function: Any) -> Any:
    """The function itself, with the wrap-around of 64-bit words that compiled code has."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return function(*args)

    return run


def kernel(function: Function, *, work: Callable[..., Any] | None = None) -> Function:
    """Compile an entry point: serial, ``nogil``, cached; array arguments must not overlap.

    Only what stands in ``kernels/`` is cached: the folder's name knows of no other edits.

    Args:
        work: the function that matters, where it is not this one.
    """
    if INTERPRETED:
        return _as_python(function)  # type: ignore[no-any-return]
    source: Any = function if work is None else work
    cached = CACHE_FOLDER is not None and Path(source.__code__.co_filename).parent == _IMPORTED
    if PLAIN:
        return numba.njit(**_PUBLIC, cache=cached)(function)  # type: ignore[no-any-return]
    compiled: Any = numba.njit(**_WITHOUT_C, pipeline_class=_NoAliasCompiler)(function)
    if cached:
        compiled._cache = _KernelCache(function)
    return compiled  # type: ignore[no-any-return]


def _called(function: Function, **more: Any) -> Function:
    if INTERPRETED:
        return function
    if PLAIN:
        return numba.njit(**_PUBLIC)(function)  # type: ignore[no-any-return]
    return _Helper(function, targetoptions=_OF_HELPERS, **more)  # type: ignore[no-any-return]


def helper(function: Function) -> Function:
    """Compile a function that kernels call; LLVM inlines it where that pays."""
    return _called(function)


def part(function: Function) -> Function:
    """A ``helper`` that LLVM may leave out of line; its array arguments must not overlap.

    It is compiled with that promise, as kernels are, so that its loops vectorise on their own.
    """
    return _called(function, **({} if PLAIN else {"pipeline_class": _NoAliasCompiler}))


def processor_features() -> dict[str, bool]:
    """What LLVM says the processor has, by name; nothing where it cannot say."""
    try:
        return dict(binding.get_host_cpu_features())
    except (RuntimeError, AttributeError):
        return {}


HAS_COMPRESS = bool(processor_features().get("avx512f"))
# products of bfloat16 pairs: torch's are then twice as fast
HAS_BFLOAT16 = bool(processor_features().get("avx512bf16"))
