"""``torchrun -m fastneg train``: two processes write what one writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.commands.conftest import Runner

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    "train", "--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv", "--recipe",
    "mixed-negative-sampling", "--set", "epochs=2", "--set", "dim=4", "--set", "num_uniform=7",
    "--set", "batch_size=63", "--set", "device=cpu", "--set", "checkpoint_every=2",
)  # fmt: skip


def on_two(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr",
               "127.0.0.1", "--nproc-per-node", "2", "-m", "fastneg", *arguments]  # fmt: skip
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one(fastneg: Runner, files: Path) -> None:
    done = on_two(*ARGUMENTS, "--out", "two", cwd=files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to two") == 1
    ran = fastneg(*ARGUMENTS, "--out", "one")
    assert ran.code == 0, ran.err
    one, two = files / "one", files / "two"
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    weights, expected = (load_file(out / "model.safetensors") for out in (two, one))
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert float((weights[name] - tensor).abs().max()) < 1e-6, name
    assert len(lines_of(two)) == len(lines_of(one)) == 2
    for line, other in zip(lines_of(two), lines_of(one), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert line["validation"] == pytest.approx(other["validation"], abs=1e-6)
    found, wanted = (json.loads((out / "metrics.json").read_text()) for out in (two, one))
    assert found["test"] == pytest.approx(wanted["test"], abs=1e-6)
    assert found["counts"] == wanted["counts"]
    # one process takes up what two have begun
    again = fastneg(*ARGUMENTS, "--out", "two", "--resume")
    assert again.code == 0, again.err
    resumed = load_file(two / "model.safetensors")
    assert all(bool((resumed[name] == weights[name]).all()) for name in weights)
