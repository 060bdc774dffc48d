"""The doctor: it finds what is there, warns of what is slow, and never fails."""

from __future__ import annotations

import ctypes
import importlib.metadata
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastneg import cli, doctor

SECTIONS = ["versions", "cpu", "threads", "blas", "numba_cache", "faiss", "gpu", "warnings"]


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return doctor.examine()


def healthy() -> dict[str, Any]:
    """Facts of a machine that has nothing to be warned of."""
    return {
        "versions": {"numpy": "2.4.6"},
        "cpu": {"cores_allowed": 8, "flags": ["avx2", *sorted(doctor._SKYLAKE_X)]},
        "threads": {"fastneg": 8},
        "blas": {"openblas": {"faiss": "SkylakeX", "numpy": "Cooperlake"}},
        "numba_cache": {"writable": True},
    }


def test_it_finds_what_is_there(facts: dict[str, Any]) -> None:
    assert list(facts) == SECTIONS
    assert facts["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert facts["versions"]["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert facts["cpu"]["cores_allowed"] >= 1
    assert facts["threads"]["fastneg"] >= 1
    assert facts["faiss"]["version"] == importlib.metadata.version("faiss-cpu")
    assert isinstance(facts["gpu"]["available"], bool)
    assert isinstance(facts["warnings"], list)
    json.dumps(facts)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="OpenBLAS is found in /proc")
def test_the_core_type_is_what_openblas_says(facts: dict[str, Any]) -> None:
    import faiss

    folder = Path(faiss.__file__).parents[1] / "faiss_cpu.libs"
    libraries = list(folder.glob("*openblas*.so*")) if folder.is_dir() else []
    if not libraries:
        pytest.skip("this build of FAISS brings no OpenBLAS of its own")
    function = ctypes.CDLL(os.fspath(libraries[0])).openblas_get_corename
    function.restype = ctypes.c_char_p
    assert facts["blas"]["openblas"]["faiss"] == function().decode()


def test_register_widths() -> None:
    assert doctor.register_width("Prescott") == 128
    assert doctor.register_width("Haswell") == doctor.register_width("Zen") == 256
    assert doctor.register_width("SkylakeX") == 512
    assert doctor.register_width("armv8") is None


def test_a_healthy_machine_has_no_warning() -> None:
    assert doctor.warnings_of(healthy()) == []


@pytest.mark.parametrize(
    ("core", "flags", "wanted"),
    [
        ("Prescott", ["avx2"], "SSE kernels (Prescott) on a processor with AVX2: set"),
        ("Prescott", ["avx2"], "set OPENBLAS_CORETYPE=Haswell"),
        ("Nehalem", None, "SSE kernels (Nehalem) on a processor with AVX-512: set"),
        ("Nehalem", None, "set OPENBLAS_CORETYPE=SkylakeX"),
        ("Haswell", None, "AVX kernels (Haswell) on a processor with AVX-512"),
    ],
)
def test_a_slow_core_type_is_warned_of(core: str, flags: list[str] | None, wanted: str) -> None:
    found = healthy()
    found["blas"]["openblas"]["faiss"] = core
    if flags is not None:
        found["cpu"]["flags"] = flags
    warned = doctor.warnings_of(found)
    assert len(warned) == 1
    assert wanted in warned[0]
    assert "the OpenBLAS of faiss" in warned[0]


def test_a_fitting_or_unknown_core_type_is_not() -> None:
    found = healthy()
    found["blas"]["openblas"] = {"faiss": "Haswell", "numpy": "unknown"}
    found["cpu"]["flags"] = ["avx2"]
    assert doctor.warnings_of(found) == []
    found["cpu"]["flags"] = "unknown"
    found["blas"]["openblas"] = {"faiss": "Prescott"}
    assert doctor.warnings_of(found) == []


def test_other_warnings() -> None:
    found = healthy()
    found["numba_cache"]["writable"] = False
    found["threads"]["fastneg"] = 2
    found["versions"]["pyarrow"] = "missing"
    warned = " | ".join(doctor.warnings_of(found))
    assert "NUMBA_CACHE_DIR" in warned
    assert "2 of 8 cores are used" in warned
    assert "pyarrow is not installed" in warned


def test_it_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise OSError("nothing can be read here")

    for name in ("versions", "cpu", "thread_counts", "blas", "faiss_build", "gpu"):
        monkeypatch.setattr(doctor, name, broken)
    monkeypatch.setattr(doctor, "numba_cache", lambda: {"folder": "none", "writable": False})
    found = doctor.examine()
    assert found["versions"] == found["cpu"] == found["gpu"] == "unknown"
    assert len(found["warnings"]) == 1
    text = io.StringIO()
    doctor.show(found, Console(file=text, width=200))
    assert "unknown" in text.getvalue()


def test_parts_that_cannot_be_found_out_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refused)
    found = doctor.examine()
    assert found["cpu"]["model"] == found["cpu"]["flags"] == found["blas"]["openblas"] == "unknown"
    assert found["versions"]["numpy"] != "unknown"
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import of it fails now
    found = doctor.examine()
    assert found["faiss"] == found["threads"]["faiss"] == "unknown"


def test_the_command_prints_json_and_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run(["doctor", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == SECTIONS
    found = {**healthy(), "warnings": ["slow [kernels]"]}
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert cli.run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "warning: slow [kernels]" in out
    assert "faiss SkylakeX, numpy Cooperlake" in out
