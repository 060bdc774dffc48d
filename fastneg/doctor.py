"""What a bug report and a benchmark need to know of a machine: versions, cores, BLAS, caches, GPU.

Nothing here raises: what cannot be found out is ``"unknown"``, what is not installed ``"missing"``.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "unknown"
MISSING = "missing"

PACKAGES = (
    "numpy", "numba", "llvmlite", "torch", "faiss-cpu", "pyarrow", "safetensors", "typer", "rich",
    "matplotlib",
)  # fmt: skip
# OpenBLAS's names of its kernels' processors, by the bits of the widest registers that they use
_WIDTHS = {
    128: ("katmai", "coppermine", "northwood", "prescott", "banias", "atom", "core2", "penryn",
          "dunnington", "nehalem", "athlon", "opteron", "opteron_sse3", "barcelona", "bobcat"),
    256: ("sandybridge", "bulldozer", "piledriver", "steamroller", "haswell", "zen", "excavator"),
    512: ("skylakex", "cooperlake", "sapphirerapids"),
}  # fmt: skip
_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd",
    "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "bf16",
)  # fmt: skip
_SKYLAKE_X = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}
_CORE_NAMES = (
    "openblas_get_corename",
    "openblas_get_corename64_",
    "scipy_openblas_get_corename",
    "scipy_openblas_get_corename64_",
)
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """Everything there is to know, JSON-able; see ``warnings_of`` for what is worth changing."""
    facts = {
        "versions": _or_unknown(versions),
        "cpu": _or_unknown(cpu),
        "threads": _or_unknown(thread_counts),
        "blas": _or_unknown(blas),
        "numba_cache": _or_unknown(numba_cache),
        "faiss": _or_unknown(faiss_build),
        "gpu": _or_unknown(gpu),
    }
    facts["warnings"] = _or_unknown(lambda: warnings_of(facts))
    return facts


def _or_unknown(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except (Exception, SystemExit):  # noqa: BLE001  (a broken package must not hide the rest)
        return UNKNOWN


def versions() -> dict[str, str]:
    """Python, the system, fastneg and what it depends on."""
    from fastneg import __version__

    found = {
        "fastneg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = MISSING
    if found["faiss-cpu"] == MISSING:  # a GPU build owns the same module under another name
        found["faiss"] = _or_unknown(lambda: str(importlib.import_module("faiss").__version__))
    return found


# Processor -------------------------------------------------------------------------------------


def cpu() -> dict[str, Any]:
    """Model, cores that this process may use, vector extensions, caches."""
    from fastneg.threads import allowed_cores

    return {
        "model": _or_unknown(_cpu_model),
        "architecture": platform.machine() or UNKNOWN,
        "cores": os.cpu_count() or UNKNOWN,
        "cores_allowed": _or_unknown(allowed_cores),
        "cgroup_cores": _or_unknown(_cgroup_cores),
        "flags": _or_unknown(cpu_flags),
        "caches": _or_unknown(_caches),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, keys in lower case."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _cpu_model() -> str:
    return _cpuinfo().get("model name") or platform.processor() or UNKNOWN


def cpu_flags() -> list[str] | str:
    """Which of the vector extensions that matter here the processor has."""
    info = _cpuinfo()
    have = set((info.get("flags") or info.get("features") or "").split())
    return [flag for flag in _FLAGS if flag in have] if have else UNKNOWN


def _cgroup_cores() -> float | str:
    """The share of cores that a container may use, as its quota says; ``"no limit"`` without."""
    quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    return "no limit" if quota == "max" else int(quota) / int(period)


def _caches() -> dict[str, str] | str:
    """Size of each cache of core 0, and how many cores share it."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        facts = {
            name: (folder / name).read_text(encoding="utf-8").strip()
            for name in ("level", "type", "size", "shared_cpu_list")
        }
        kind = {"Data": "d", "Instruction": "i"}.get(facts["type"], "")
        cores = facts["shared_cpu_list"]
        found[f"L{facts['level']}{kind}"] = f"{facts['size']} (cores {cores})"
    return found or UNKNOWN


def thread_counts() -> dict[str, Any]:
    """How many threads each library would use now, and the variables that decide it."""
    from fastneg.threads import get_num_threads

    def of_torch() -> int:
        return int(importlib.import_module("torch").get_num_threads())

    def of_faiss() -> int:
        return int(importlib.import_module("faiss").omp_get_max_threads())

    return {
        "torch": _or_unknown(of_torch),  # first: fastneg's number follows torch's
        "fastneg": _or_unknown(get_num_threads),
        "faiss": _or_unknown(of_faiss),
        "variables": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
    }


# BLAS ------------------------------------------------------------------------------------------


def blas() -> dict[str, Any]:
    """The BLAS of NumPy, FAISS and torch, and the kernels that each OpenBLAS chose."""
    for name in ("numpy", "faiss"):  # loads their libraries
        _or_unknown(partial(importlib.import_module, name))

    def torch_blas() -> dict[str, Any]:
        torch = importlib.import_module("torch")
        return {
            "mkl": bool(torch.backends.mkl.is_available()),
            "onednn": bool(torch.backends.mkldnn.is_available()),
            "capability": torch.backends.cpu.get_cpu_capability(),
        }

    def numpy_blas() -> str:
        config = importlib.import_module("numpy").show_config(mode="dicts")
        found = config["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"

    return {
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "not set"),
        "numpy": _or_unknown(numpy_blas),
        "openblas": _or_unknown(openblas_cores),
        "torch": _or_unknown(torch_blas),
    }


def openblas_cores() -> dict[str, str] | str:
    """The core type of each OpenBLAS that this process has loaded, by its owner or its file."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if ".so" in line}
    found = {}
    for path in sorted(path for path in paths if "openblas" in Path(path).name.lower()):
        owner = Path(path).parent.name.removesuffix(".libs").removesuffix("_cpu")
        name = owner if owner in ("numpy", "faiss", "scipy") else Path(path).name
        found[name] = _or_unknown(partial(_core_of, path))
    return found or UNKNOWN


def _core_of(path: str) -> str:
    library = ctypes.CDLL(path)
    for name in _CORE_NAMES:
        function = getattr(library, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            return str(function().decode())
    return UNKNOWN


def register_width(core: str) -> int | None:
    """Bits of the registers that OpenBLAS's kernels for a core type use; None for another name."""
    return next((bits for bits, names in _WIDTHS.items() if core.lower() in names), None)


# Kernels, search, GPU --------------------------------------------------------------------------


def numba_cache() -> dict[str, Any]:
    """Where compiled kernels are kept, and whether they can be."""
    jit = importlib.import_module("fastneg.kernels.jit")
    folder = jit.CACHE_FOLDER
    asked = os.environ.get("NUMBA_CACHE_DIR", "not set")
    plain = "plainly, without " + ", ".join(jit.missing_internals())
    how = "not compiled" if jit.INTERPRETED else plain if jit.PLAIN else "as usual"
    if folder is None:
        return {"compiled": how, "folder": "none", "writable": False, "NUMBA_CACHE_DIR": asked}
    return {
        "compiled": how,
        "folder": str(folder),
        "writable": os.access(folder, os.W_OK),
        "kernels": sum(1 for _ in Path(folder).glob("*.nbi")),
        "NUMBA_CACHE_DIR": asked,
    }


def faiss_build() -> dict[str, Any]:
    """FAISS's version, compile options and GPUs."""
    faiss = importlib.import_module("faiss")
    return {
        "version": str(faiss.__version__),
        "compile_options": _or_unknown(lambda: faiss.get_compile_options().split()),
        "gpus": _or_unknown(lambda: int(faiss.get_num_gpus())),
    }


def gpu() -> dict[str, Any]:
    """The CUDA devices that torch sees."""
    torch = importlib.import_module("torch")
    built = torch.version.cuda
    if not torch.cuda.is_available():
        return {"available": False, "torch_cuda": built or "a build without CUDA", "devices": []}
    devices = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        devices.append(
            {
                "name": facts.name,
                "memory_gib": round(facts.total_memory / 2**30, 1),
                "capability": f"{facts.major}.{facts.minor}",
            }
        )
    return {"available": True, "torch_cuda": built, "devices": devices}


# What to change --------------------------------------------------------------------------------


def warnings_of(facts: dict[str, Any]) -> list[str]:
    """What in ``facts`` makes this machine slower than it need be, one line each."""
    found = []
    flags = _part(facts, "cpu", "flags")
    flags = set(flags) if isinstance(flags, list) else set()
    cores = _part(facts, "blas", "openblas")
    for owner, core in cores.items() if isinstance(cores, dict) else ():
        width = register_width(core)
        best, wanted = (512, "SkylakeX") if flags >= _SKYLAKE_X else (256, "Haswell")
        if width is None or width >= best or "avx2" not in flags:
            continue
        kernels = {128: "SSE", 256: "AVX"}[width]
        found.append(
            f"the OpenBLAS of {owner} uses {kernels} kernels ({core}) on a processor with "
            f"{'AVX-512' if best == 512 else 'AVX2'}: set OPENBLAS_CORETYPE={wanted} before "
            "Python starts and measure again (exact search is a matrix product)"
        )
    if _part(facts, "numba_cache", "writable") is False:
        found.append(
            "compiled kernels cannot be kept, so every process compiles them again: set "
            "NUMBA_CACHE_DIR to a folder that can be written"
        )
    how = _part(facts, "numba_cache", "compiled")
    if isinstance(how, str) and how != "as usual":
        found.append(
            f"kernels are {'compiled ' if how != 'not compiled' else ''}{how}: the same results, "
            "more slowly (NUMBA_DISABLE_JIT, or a version of Numba that lacks what is used)"
        )
    allowed, threads = _part(facts, "cpu", "cores_allowed"), _part(facts, "threads", "fastneg")
    if isinstance(allowed, int) and isinstance(threads, int) and threads < allowed:
        found.append(
            f"{threads} of {allowed} cores are used: torch's threads or OMP_NUM_THREADS are fewer"
        )
    for name, version in _part(facts, "versions").items() if "versions" in facts else ():
        if version == MISSING and name not in ("matplotlib", "faiss-cpu"):
            found.append(f"{name} is not installed")
    return found


def _part(facts: dict[str, Any], *names: str) -> Any:
    """A fact inside a fact; ``{}`` where a part of the way is unknown."""
    here: Any = facts
    for name in names:
        here = here.get(name, {}) if isinstance(here, dict) else {}
    return {} if here == UNKNOWN else here


def show(facts: dict[str, Any], console: Console) -> None:
    """Print ``examine()``'s facts as one table, its warnings below."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for section, part in facts.items():
        if section == "warnings":
            continue
        rows = part.items() if isinstance(part, dict) else [("", part)]
        for name, value in rows:
            table.add_row(escape(f"{section} {name}".strip()), escape(_text(value)))
    console.print(table)
    for warning in facts["warnings"] if isinstance(facts["warnings"], list) else ():
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(_text(one) for one in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
