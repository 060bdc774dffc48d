"""Fresh processes: the import, the first draw, an empty cache of kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fastneg
from bench.report import Goal, Group, absolute
from bench.rounds import Side, measure
from bench.worlds import Scale

TITLE = "Fresh processes: wall time of the interpreter, whole"
_TRIVIAL = """
import numba

@numba.njit(cache=True)
def total(values):
    result = 0.0
    for value in values:
        result += value
    return result
"""
_NUMBA = "import sys; sys.path.insert(0, {folder!r})\nimport numpy as np, trivial\n"
SCRIPTS = {
    "bare": "pass",
    "import": "import fastneg",
    "numba": _NUMBA + "assert trivial.total(np.ones(3)) == 3",
    "numba and torch": "import torch\n" + _NUMBA + "assert trivial.total(np.ones(3)) == 3",
    "popularity": (
        "import numpy as np, fastneg\n"
        "sampler = fastneg.PopularitySampler(np.arange(1, 1001))\n"
        "assert sampler.sample_shared(16).items.shape == (16,)"
    ),
    "uniform excluding": (
        "import numpy as np, fastneg\n"
        "pairs = fastneg.Interactions.from_codes(np.arange(100) % 10, np.arange(100))\n"
        "assert fastneg.UniformSampler(pairs).sample(np.arange(10), 4).items.shape == (10, 4)"
    ),
}


def run(scale: Scale, group: Group) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "trivial.py").write_text(_TRIVIAL, encoding="utf-8")
        sides = [
            Side(name, process(script.replace("{folder!r}", repr(folder))), calls=1)
            for name, script in SCRIPTS.items()
        ]
        timing = measure(sides, rounds=scale.few(0.35))
    times = {name: timing.times[name, 1] for name in SCRIPTS}

    def over(name: str, base: str, bound: float | None, what: str) -> None:
        beyond = [a - b for a, b in zip(times[name], times[base], strict=True)]
        whole, other = timing.figure(name).median * 1e-9, timing.figure(base).median * 1e-9
        goal = None if bound is None else Goal(bound, at_least=False)
        note = f"{whole:.2f} s whole, {other:.2f} s without"
        row = absolute(
            what, base, 1, timing.spread(beyond), goal=goal, unit="s", scale=1e-9, note=note
        )
        group.add(row)

    over("import", "bare", 0.05, "import fastneg, over a bare interpreter")
    for name in ("popularity", "uniform excluding"):
        what = f"first draw, {name}, warm cache"
        over(name, "numba and torch", 0.25, f"{what}, over numba, torch and a trivial kernel")
        over(name, "numba", None, f"{what}, over numba and a trivial kernel")
    for name in ("popularity", "uniform excluding"):
        cold = measure(
            [Side(name, process(SCRIPTS[name], cold=True), calls=1, warm=False)],
            rounds=1 if scale.quick else 3,
        )
        group.add(
            absolute(
                f"first draw, {name}, empty cache of kernels, imports included",
                "whole process",
                1,
                cold.figure(name),
                goal=Goal(8.0, at_least=False),
                unit="s",
                scale=1e-9,
            )
        )
    group.note("Negatives are tensors, so a first draw imports torch: the second line has it too.")


def process(script: str, *, cold: bool = False) -> Callable[[], None]:
    """Runs a script in a fresh interpreter; ``cold``: with no compiled kernel to be found."""
    root = str(Path(fastneg.__file__).resolve().parent.parent)

    def run_it() -> None:
        environment = {**os.environ, "PYTHONPATH": root}
        command = [sys.executable, "-c", script]
        if not cold:
            subprocess.run(command, check=True, env=environment)
            return
        with tempfile.TemporaryDirectory() as empty:
            environment["NUMBA_CACHE_DIR"] = empty
            subprocess.run(command, check=True, env=environment)

    return run_it
