"""The house: a file imports only what stands below it, and ``import fastneg`` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastneg

PACKAGE = Path(fastneg.__file__).parent

# From the roof to the ground. A room imports itself and what stands below its line.
LEVELS = [
    ["__main__"],
    ["cli"],
    ["demo", "doctor", "commands"],
    ["recipes"],
    ["training"],
    ["mining"],
    ["samplers", "data"],
    ["interactions"],
    ["saved_rows"],
    ["encoding", "rows", "same_codes", "sources", "sparse"],
    ["positives", "row_columns", "vocabulary"],
    ["columns", "storage", "tables"],
    ["parquet_files", "json_lines"],
    ["text_files"],
    ["archives", "arrow_files", "files", "text_options"],
    ["list_signs"],
    ["checks", "ids", "streams"],
    ["threads"],
    ["locks", "shared"],
    ["kernels", "errors", "lazy", "__init__"],
]
KERNEL_IMPORTS = {"__future__", "collections", "ctypes", "functools", "hashlib", "importlib",
                  "llvmlite", "numba", "numpy", "os", "pathlib", "tempfile", "types", "typing",
                  "warnings"}  # fmt: skip
HEAVY = ["numba", "torch", "faiss", "pyarrow", "matplotlib", "typer", "rich", "triton", "numpy"]
NEVER = {"scipy", "pandas", "polars", "sklearn", "tqdm"}  # not among the dependencies


def level_of(room: str) -> int:
    for height, rooms in enumerate(reversed(LEVELS)):
        if room in rooms:
            return height
    raise AssertionError(f"{room} has no place in the house; add it to LEVELS")


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, inside functions and type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= (
                {f"{base}.{alias.name}" for alias in node.names} if base == "fastneg" else {base}
            )
    return found


def arrows_up(package: Path) -> list[str]:
    """Imports that run up or sideways."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        for module in sorted(imported_modules(path)):
            parts = module.split(".")
            if parts[0] != "fastneg" or len(parts) == 1:
                continue
            target = (
                parts[1]
                if (package / parts[1]).exists() or (package / f"{parts[1]}.py").exists()
                else "__init__"
            )
            if target != room and level_of(target) >= level_of(room):
                wrong.append(f"{path.relative_to(package)} imports {module}")
    return wrong


def test_no_arrow_runs_up() -> None:
    assert arrows_up(PACKAGE) == []


def test_an_arrow_that_runs_up_is_seen(tmp_path: Path) -> None:
    house = tmp_path / "fastneg"
    (house / "samplers").mkdir(parents=True)
    (house / "training").mkdir()
    (house / "training" / "trainer.py").write_text("from fastneg.samplers import base\n")
    (house / "samplers" / "base.py").write_text(
        "def f():\n    from fastneg.training.trainer import Trainer\n"
    )
    (house / "threads.py").write_text("import fastneg.checks\n")
    (house / "checks.py").write_text("import numpy\n")
    assert arrows_up(house) == [
        "samplers/base.py imports fastneg.training.trainer",
        "threads.py imports fastneg.checks",
    ]


def test_no_circles_inside_a_room() -> None:
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(("fastneg", *path.relative_to(PACKAGE).with_suffix("").parts))
        top = {
            node.module
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
        }
        graph[name] = {module for module in top if module.startswith("fastneg.")}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"a circle: {' -> '.join((*trail, name))}"
        if state.get(name) == 2:
            return
        state[name] = 1
        for other in graph.get(name, ()):
            visit(other, (*trail, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


def test_kernels_know_arrays_only() -> None:
    for path in (PACKAGE / "kernels").glob("*.py"):
        for module in imported_modules(path):
            root = module.split(".")[0]
            assert module.startswith("fastneg.kernels") or root in KERNEL_IMPORTS, (path, module)


def test_only_declared_dependencies_are_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        roots = {module.split(".")[0] for module in imported_modules(path)}
        assert not roots & NEVER, (path, roots & NEVER)
        if "triton" in roots:
            assert "cuda" in path.parts


def test_no_file_is_over_400_lines() -> None:
    root = PACKAGE.parent
    for folder in ("fastneg", "tests", "bench"):
        for path in (root / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert loaded_by("import fastneg; dir(fastneg); fastneg.FastnegError") == set()


def test_a_heavy_import_is_seen() -> None:
    assert {"numba", "numpy"} <= loaded_by("import fastneg; fastneg.UniformSampler")


@pytest.mark.parametrize("name", fastneg.__all__)
def test_every_public_name_imports(name: str) -> None:
    assert getattr(fastneg, name) is not None


def test_the_stub_names_what_is_public() -> None:
    stub = (PACKAGE / "__init__.pyi").read_text()
    wanted = {f"from {home} import {name} as {name}" for name, home in fastneg._HOMES.items()}
    assert {line for line in stub.splitlines() if line.startswith("from ")} == wanted


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fastneg.Nothing  # noqa: B018
