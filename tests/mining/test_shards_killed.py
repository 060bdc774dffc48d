"""Jobs that are killed at any moment end with the bytes of a job that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastneg
from fastneg.mining.job_folder import LOG
from tests.mining.killed_jobs import QUERIES, SHARD

ROOT = Path(fastneg.__file__).parents[1]
SHARDS = -(-QUERIES // SHARD)
KILLED = -9


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the log, which holds the times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOG}


class Jobs:
    """The program of ``killed_jobs.py``."""

    def __init__(self, undisturbed: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.mining.killed_jobs", str(undisturbed)], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.whole = contents(undisturbed)

    def run(self, folder: Path, **task: Any) -> dict[str, int]:
        task |= {"folder": str(folder), "trace": f"{folder}.trace"}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer

    def check(self, folder: Path, kills: int) -> None:
        """The same bytes, and no kill cost more than the part that was being mined."""
        assert contents(folder) == self.whole
        begun = Path(f"{folder}.trace").read_text().splitlines()
        assert len(set(begun)) == 2 * SHARDS
        assert 2 * SHARDS <= len(begun) <= 2 * SHARDS + kills


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    running = Jobs(tmp_path_factory.mktemp("jobs") / "undisturbed")
    yield running
    running.process.stdin.close()  # type: ignore[union-attr]
    running.process.wait(timeout=20)


def test_an_undisturbed_run_is_what_is_compared(jobs: Jobs, tmp_path: Path) -> None:
    assert jobs.run(tmp_path / "job")["code"] == 0
    jobs.check(tmp_path / "job", kills=0)
    parts = [name for name in jobs.whole if name.startswith("part-")]
    assert len(parts) == SHARDS
    assert {"manifest.json", "items.parquet", "engine-index.npy", ".fastneg.lock"} < set(jobs.whole)


def test_killed_before_any_file_operation(jobs: Jobs, tmp_path: Path) -> None:
    """Every process dies at its n-th operation, so that kills fall on every kind of it."""
    assert jobs.run(tmp_path / "whole")["operations"] > 200
    for number in (37, 43, 61):
        folder, kills = tmp_path / f"every-{number}", 0
        while jobs.run(folder, kill_at=number)["code"] == KILLED:
            kills += 1
            assert kills < 100, "the job does not get on"
        jobs.check(folder, kills)
        assert kills >= 3


def test_killed_once_at_chosen_operations(jobs: Jobs, tmp_path: Path) -> None:
    """One kill each: while beginning, around the passes' border, at the end."""
    total = jobs.run(tmp_path / "whole")["operations"]
    middle = total // 2
    for number in (0, 2, 5, 9, 14, 19, *range(middle, middle + 7), total - 3, total - 1):
        folder = tmp_path / f"at-{number}"
        assert jobs.run(folder, kill_at=number)["code"] == KILLED
        assert jobs.run(folder)["code"] == 0
        jobs.check(folder, kills=1)


def test_twenty_kills_at_random_moments(jobs: Jobs, tmp_path: Path) -> None:
    started = time.perf_counter()
    jobs.run(tmp_path / "timed")
    seconds = time.perf_counter() - started
    rng, kills, number = np.random.default_rng(), 0, 0
    while kills < 20:
        folder, own = tmp_path / f"random-{number}", 0
        while True:
            answer = jobs.run(folder, kill_after=float(rng.uniform(0, 0.8 * seconds)))
            if answer["code"] == 0:
                break
            assert answer["code"] == KILLED
            own += 1
        jobs.check(folder, own)
        kills, number = kills + own, number + 1
