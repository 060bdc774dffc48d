"""No public call ends or hangs the interpreter, whatever it is given.

``FASTNEG_HOSTILE=full`` tries every hostile value on every argument (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastneg

ROOT = Path(__file__).resolve().parents[1]
# public names that are not walked, and why
NOT_WALKED = {
    "CheckpointError": "an exception",
    "ExhaustedUserError": "an exception",
    "FastnegError": "an exception",
    "FastnegMemoryError": "an exception",
    "FastnegTypeError": "an exception",
    "FileFormatError": "an exception",
    "Sampler": "abstract: its subclasses are walked",
    "UnknownIdError": "an exception",
    "__version__": "a string",
}
NAMES = [name for name in fastneg.__all__ if name not in NOT_WALKED]
PROCESSES = 2


def walked(folder: Path, names: list[str], program: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a walk in a process of its own found; it fails with the call that ended the process."""
    full = ("--full",) if os.environ.get("FASTNEG_HOSTILE") == "full" else ()
    done = subprocess.run(
        [sys.executable, *(program or ("-m", "tests.hostile")), str(folder), *names, *full],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        last = folder / "last"
        call = last.read_text() if last.exists() else "before the first call"
        pytest.fail(f"{call}\nended the process: {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_reasons_are_of_public_names() -> None:
    assert set(NOT_WALKED) < set(fastneg.__all__)


@pytest.mark.parametrize("part", range(PROCESSES))
def test_the_interpreter_lives(part: int, tmp_path: Path) -> None:
    names = NAMES[part::PROCESSES]
    found = walked(tmp_path, names)
    assert found["walked"] == names
    assert found["wrong"] == []  # each is called with right arguments first, and works
    assert found["slow"] == []
    assert found["raw"] == []
    assert found["calls"] > 100 * len(names) // 2


CRASH = """
import ctypes, sys, time
from pathlib import Path
import fastneg
from tests import hostile

def crashes(users):
    if users is None:
        ctypes.string_at(0)

def hangs(users):
    while users is None:
        time.sleep(0.01)

fastneg.crashes, fastneg.hangs = crashes, hangs
hostile.SLOW = 1
hostile.main(Path(sys.argv[1]), sys.argv[2:], full=False)
"""


def test_a_crash_is_noticed_and_named(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="crashes: users = None") as failed:
        walked(tmp_path, ["crashes"], ("-c", CRASH))
    assert "Segmentation fault" in str(failed.value)


def test_a_hang_is_noticed_and_named(tmp_path: Path) -> None:
    assert walked(tmp_path, ["hangs"], ("-c", CRASH))["slow"] == ["hangs: users = None"]
