"""A mining job that is killed again and again, and what it leaves."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.groups.mining_job import check, command, environment, write_inputs
from bench.report import Group, Row
from bench.rounds import threads_here
from bench.vectors import mixture, near_positives
from bench.worlds import Scale

TITLE = "Mining, killed: SIGKILL at random moments of a job, and the same command again"
KILLS, SIZE, SHARD = 20, 50_000, 2_048
_NO_RESULT = ("log.jsonl", ".fastneg.lock")  # when and how long; who holds the folder


class _Killings(NamedTuple):
    moments: list[float]  # seconds after the job began
    shards: list[int]  # that stood there
    ended: int  # jobs that came to their end
    equal: int  # those with the bytes of the undisturbed one


def run(scale: Scale, group: Group) -> None:
    if importlib.util.find_spec("fastneg.mining.shards") is None:
        group.skip("SIGKILL", "this fastneg has no jobs in shards")
        return
    kills = 3 if scale.quick else KILLS
    world = mixture(scale.size(SIZE), scale.size(SIZE))
    positives = near_positives(world)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, world, positives)
        shard = str(min(SHARD, len(world.queries) // 8))
        more = ("--search", "ivf", "--max-per-item", "40", "--shard-queries", shard)
        _undisturbed(folder, folder / "warm", more)  # compiles the kernels that no cache has
        begun, seconds = _undisturbed(folder, folder / "whole", more)
        expected = contents(folder / "whole")
        assert expected == contents(folder / "warm")
        killed = _killed(folder, more, kills, seconds - begun, expected)
        found = check(folder / "whole", positives, len(world.items))
        assert found.rows == len(world.queries)
        parts = len(list((folder / "whole").glob("part-*")))
        some = sum(0 < left < parts for left in killed.shards)
        size = f"{len(world.queries):,} queries, {len(world.items):,} items, {parts} shards"
        group.add(
            Row(
                "SIGKILL at random moments of a job of two passes",
                size,
                threads_here()[-1],
                float(len(killed.moments)),
                unit="kills",
                goal="the same bytes",
                reached=len(killed.moments) == kills and killed.equal == killed.ended,
                note=f"{killed.equal} of {killed.ended} jobs that came to their end have the bytes "
                f"of the undisturbed one ({len(expected)} files); {some} of the kills left some "
                f"shards and not all; {min(killed.moments, default=0):.1f} to "
                f"{max(killed.moments, default=0):.1f} s after the job began; undisturbed "
                f"{seconds - begun:.1f} s and {begun:.1f} s of imports; {found.positives} "
                "positives mined",
            )
        )
    group.note(
        "Each moment is drawn evenly from the time that an undisturbed job takes from its folder's "
        "lock to its end; the same command then goes on. A job that ended before its moment is "
        "compared and begun anew. Compared: every file of the folder but the log (times) and the "
        "lock."
    )


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that belongs to the result."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name not in _NO_RESULT
    }


def _undisturbed(folder: Path, out: Path, more: tuple[str, ...]) -> tuple[float, float]:
    """Seconds until the job has begun, and until it has ended."""
    started = time.perf_counter()
    process = _start(folder, out, more)
    begun = time.perf_counter() - started
    assert process.wait() == 0
    return begun, time.perf_counter() - started


def _start(folder: Path, out: Path, more: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """The process, as soon as it holds its folder (or has ended)."""
    process = subprocess.Popen(
        command(folder, out, *more), env=environment(), stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not _holds(out, process.pid):
        time.sleep(0.005)
    return process


def _holds(out: Path, pid: int) -> bool:
    """Whether the process has the folder's lock open."""
    lock = str((out / ".fastneg.lock").resolve())
    with contextlib.suppress(OSError):
        return any(str(h.readlink()) == lock for h in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _killed(
    folder: Path, more: tuple[str, ...], kills: int, seconds: float, expected: dict[str, str]
) -> _Killings:
    """Kill so many jobs, and bring each folder to its end at last."""
    rng, out = np.random.default_rng(0), folder / "killed"
    found = _Killings([], [], 0, 0)
    while found.ended < 2 * kills:
        wait = float(rng.uniform(0.0, seconds)) if len(found.moments) < kills else None
        process = _start(folder, out, more)
        try:
            assert process.wait(timeout=wait) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            found.moments.append(wait or 0.0)
            found.shards.append(len(list(out.glob("part-*.parquet"))))
            continue
        same = contents(out) == expected
        found = found._replace(ended=found.ended + 1, equal=found.equal + same)
        if len(found.moments) >= kills:
            break
        shutil.rmtree(out)
    return found
