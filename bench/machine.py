"""The machine's facts that stand beside every figure."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

RIVALS = ("vose", "lenskit", "recbole", "tensorflow-cpu", "tensorflow", "scipy")
VERSIONS = ("fastneg", "python", "numpy", "numba", "llvmlite", "torch")


def facts() -> dict[str, str]:
    """What the figures depend on, in words."""
    from fastneg.doctor import examine

    found = examine()
    cpu, threads, blas = found["cpu"], found["threads"], found["blas"]
    versions = {name: str(found["versions"].get(name, "?")) for name in VERSIONS}
    for name in RIVALS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    caches = cpu["caches"] if isinstance(cpu["caches"], dict) else {}
    return {
        "processor": f"{cpu['model']}, {_vectors(cpu['flags'])}",
        "cores": f"{cpu['cores_allowed']} of {cpu['cores']}",
        "caches": ", ".join(f"{name} {size}" for name, size in caches.items()) or "unknown",
        "memory": f"{_memory_gib():.0f} GiB, huge pages {_huge_pages()}",
        "threads": f"fastneg {threads['fastneg']}, torch {threads['torch']}; each row says its own",
        "BLAS core type": _blas(blas),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "system": str(found["versions"].get("system", "unknown")),
    }


def _vectors(flags: Any) -> str:
    if not isinstance(flags, list):
        return "vector extensions unknown"
    shown = [flag for flag in flags if flag in ("avx2", "avx512f", "avx512_bf16", "asimd", "sve")]
    return " ".join(shown) or "no vector extensions"


def _blas(blas: Any) -> str:
    if not isinstance(blas, dict):
        return "unknown"
    cores = blas.get("openblas")
    named = ", ".join(f"{k} {v}" for k, v in cores.items()) if isinstance(cores, dict) else cores
    return f"{named}; OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}"


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return float("nan")


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or "unknown"
