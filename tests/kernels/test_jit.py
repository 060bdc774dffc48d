"""How kernels are compiled: with Numba's internals, without one of them, checked, or not."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest

from fastneg.kernels import exponentials, jit, row_updates
from fastneg.kernels.jit import CACHE_FOLDER, INTERPRETED, PLAIN, PRIVATE, kernel
from fastneg.kernels.team import team_kernel
from tests.kernels.modes import Without, hide

ROOT = Path(__file__).resolve().parents[2]
compiled = pytest.mark.skipif(INTERPRETED or PLAIN, reason="kernels are not compiled as usual")


@kernel
def double(values, start, stop):
    for row in range(start, stop):
        values[row] *= 2


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v for k, v in os.environ.items() if k not in ("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env={**kept, **settings}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@compiled
@pytest.mark.skipif(CACHE_FOLDER is None, reason="no folder can be written to")
def test_only_what_the_folders_name_knows_of_is_cached() -> None:
    inside, outside = exponentials.exponentiate, double
    for one in (inside, team_kernel(inside)):
        assert one._cache.cache_path == str(CACHE_FOLDER)
    for one in (outside, team_kernel(outside)):
        assert one._cache.cache_path is None


@compiled
def test_kernels_on_a_team_have_names_of_their_own() -> None:
    works = [
        exponentials.exponentiate, exponentials.exponentiate_16, row_updates.read_rows,
        row_updates.update_rows, double,
    ]  # fmt: skip
    names = [team_kernel(one).py_func.__qualname__ for one in works]
    assert len(set(names)) == len(works)
    assert names[0] == "fastneg_kernels_exponentials_exponentiate_on_team"


# ------------------------------------------------------------------ Numba's internals


def fresh_jit() -> ModuleType:
    """``kernels/jit.py`` once more, as a module of its own."""
    spec = spec_from_file_location("another_jit", jit.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_numba_has_all_that_is_used() -> None:
    assert jit.missing_internals() == []


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PRIVATE.items() for name in names]
)
def test_without_an_internal_kernels_are_compiled_plainly_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setattr(importlib, "import_module", importlib.import_module)  # put back afterwards
    hide(module, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = fresh_jit()
    monkeypatch.undo()
    assert plain.PLAIN
    assert len(caught) == 1
    assert f"{module}.{name}" in str(caught[0].message)
    values = np.arange(4)
    plain.kernel(double.py_func if hasattr(double, "py_func") else double)(values, 1, 3)
    assert values.tolist() == [0, 2, 4, 3]


@compiled
@pytest.mark.parametrize("name", jit.OF_DISPATCHERS)
def test_without_an_attribute_of_dispatchers_kernels_are_compiled_plainly(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = numba.njit
    monkeypatch.setattr(numba, "njit", lambda function: Without(real(function), name))
    with pytest.warns(RuntimeWarning, match=f"lacks njit's {name}; kernels are compiled by plain"):
        plain = fresh_jit()
    assert plain.PLAIN


def test_a_module_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str, package: str | None = None) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", gone)
    assert jit.missing_internals() == list(PRIVATE)


# What a variable of one of these names holds, wherever a code generator has one.
HOLDS = {
    "context": ("numba.core.base.BaseContext", "numba.core.cpu.CPUContext"),
    "cgutils": ("numba.core.cgutils",),
    "_arrayobj": ("numba.np.arrayobj",),
    "compiled": ("numba.core.compiler.CompileResult",),
}
LISTED = {f"{module}.{name}" for module, names in PRIVATE.items() for name in names}


def test_every_internal_that_is_imported_is_listed() -> None:
    """Only the names of PRIVATE are reached: no import of Numba's inner modules elsewhere."""
    for path in sorted((ROOT / "fastneg").rglob("*.py")):
        if path.name == "jit.py":
            continue
        text = path.read_text()
        for inner in ("numba.core", "numba.cpython", "numba.misc", "numba.np", "numba.typed"):
            assert f"from {inner}" not in text, path
            assert f"import {inner}" not in text, path


def test_every_internal_that_code_generators_use_is_listed() -> None:
    """Of ``jit.py`` itself this is read by eye."""
    used = set()
    last = {name.split(".")[-1] for name in (*LISTED, *jit.OF_DISPATCHERS)}
    for path in sorted({*(ROOT / "fastneg" / "kernels").glob("*.py")} - {Path(jit.__file__)}):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            whole = node.value.id if isinstance(node.value, ast.Name) else ""
            where = f"{path.name}, line {node.lineno}: .{node.attr} of {whole or 'a value'}"
            if whole in HOLDS:
                found = {f"{one}.{node.attr}" for one in HOLDS[whole]} & LISTED
                assert found, f"{where} is not in PRIVATE"
                used |= found
            elif node.attr.startswith("_") and not node.attr.startswith("__"):
                assert whole in ("self", "_local") or node.attr in last, f"{where} is in no list"
    assert len(used) >= 15  # or the code generators have other names for what they use


@pytest.mark.parametrize("way", ["plain", "interpreted", "checked"])
def test_the_same_draws_and_windows_however_kernels_are_compiled(way: str) -> None:
    pytest.importorskip("torch")
    few = [] if way == "interpreted" else ["short"]
    usual = run("-m", "tests.kernels.modes", *few)
    assert usual.returncode == 0, usual.stderr
    assert usual.stdout.count("\n") == (5 if few else 10)
    if way == "plain":
        other = run(
            "-m", "tests.kernels.modes", *few, "without", "numba.core.caching", "FunctionCache"
        )
        assert other.stderr.count("kernels are compiled by plain njit(cache=True)") == 1
    else:
        name = "NUMBA_DISABLE_JIT" if way == "interpreted" else "NUMBA_BOUNDSCHECK"
        other = run("-m", "tests.kernels.modes", *few, **{name: "1"})
    assert other.returncode == 0, other.stderr
    assert other.stdout == usual.stdout


# ------------------------------------------------------------------ Numba's settings

OUT_OF_BOUNDS = """
import numpy as np
from fastneg.kernels.alias import table_masses
cells = np.array([5], np.uint64)  # the alias is item 5, in a table of one item
try:
    table_masses(cells, np.zeros(8, np.uint64)[:1])
except IndexError:
    print("IndexError")
else:
    print("nothing")
"""


def test_bounds_are_checked_where_numba_is_told_to() -> None:
    for setting, said in (("0", "nothing"), ("1", "IndexError"), ("0", "nothing")):
        ran = run("-c", OUT_OF_BOUNDS, NUMBA_BOUNDSCHECK=setting)
        assert ran.stdout.strip() == said, ran.stderr


def test_a_kernel_that_numba_cannot_cache_is_told_and_runs() -> None:
    """Without optimisation Numba's addresses stay in the code, and nothing can be cached."""
    show = "from fastneg.samplers.log_uniform import LogUniformBins as B; print(B(999).cells.sum())"
    usual, other = run("-c", show), run("-c", show, NUMBA_OPT="0")
    assert usual.stdout
    assert other.stdout == usual.stdout, other.stderr
    assert INTERPRETED or PLAIN or "Cannot cache compiled function" in other.stderr


def test_settings_that_change_machine_code_have_caches_of_their_own() -> None:
    show = "from fastneg.kernels.jit import source_fingerprint; print(source_fingerprint())"
    settings = [{}, {"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_OPT": "1"}, {"NUMBA_DEBUGINFO": "1"}]
    prints = [run("-c", show, **one).stdout for one in settings]
    assert all(prints)
    assert len(set(prints)) == len(settings)
