"""A program that runs mining jobs in forks of itself, and kills them; see test_shards_killed.py.

It reads one JSON object a line: ``folder``, ``trace``, and maybe ``kill_after`` (seconds) or
``kill_at`` (the number of a file operation of the job, before which it kills itself). It answers
each with ``{"code": exit code, "operations": how many there were}``. Forks of a warm process start
at once, so that a test can afford many.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from fastneg import set_num_threads
from fastneg.mining import shards
from fastneg.mining.shards import mine_to_folder

QUERIES, ITEMS, SHARD = 500, 900, 64


def run(folder: str) -> None:
    rng = np.random.default_rng(7)
    queries = rng.standard_normal((QUERIES, 8)).astype(np.float32)
    items = rng.standard_normal((ITEMS, 8)).astype(np.float32)
    mine_to_folder(
        queries, items, folder, window=(11, 60), num_negatives=4, max_per_item=3,
        query_ids=[f"q{i}" for i in range(QUERIES)], item_ids=[f"i{i}" for i in range(ITEMS)],
        search="faiss:IVF8,Flat", recall=0.5, shard_queries=SHARD, progress=False,
    )  # fmt: skip


def count_operations(folder: str, kill_at: int | None) -> list[int]:
    """Count what touches the folder from now on; die before operation ``kill_at``."""
    seen = [0]

    def step() -> None:
        if seen[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove") and folder in str(arguments[0]):
            step()

    sync = os.fsync

    def fsync(handle: int) -> None:
        step()
        sync(handle)

    class HalfWriter(io.FileIO):
        """Writes the first half of what it is given, as a system may; a kill comes after it."""

        def write(self, data: memoryview) -> int:  # type: ignore[override]
            written = super().write(data[: max(1, len(data) // 2)])
            if len(data) > 1000:
                step()
            return written

    opened = Path.open

    def open_path(path: Path, mode: str = "r", buffering: int = -1, **others: str) -> IO[Any]:
        if buffering == 0:
            return HalfWriter(path, mode)  # type: ignore[return-value]
        return opened(path, mode, buffering, **others)

    sys.addaudithook(hook)
    os.fsync = fsync
    Path.open = open_path  # type: ignore[assignment]
    return seen


def trace_rows(trace: str) -> None:
    """Write the first row of every part of a pass that is begun."""
    for name in ("expect_rows", "mine_rows"):
        inner = getattr(shards, name)

        def traced(job, search, rows, *others, inner=inner, name=name):  # type: ignore[no-untyped-def]
            with Path(trace).open("a") as file:
                file.write(f"{name} {rows[0]}\n")
            return inner(job, search, rows, *others)

        setattr(shards, name, traced)


def child(task: dict[str, object], counter: int) -> None:
    folder = str(task["folder"])
    trace_rows(str(task["trace"]))
    kill_at = task.get("kill_at")
    seen = count_operations(folder, kill_at if isinstance(kill_at, int) else None)
    run(folder)
    os.write(counter, str(seen[0]).encode())


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    set_num_threads(1)
    pa.set_cpu_count(1)
    run(sys.argv[1])  # compiles, imports, and is what an undisturbed job writes
    say("ready")
    for line in sys.stdin:
        task = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(task, writer)
                code = 0
            finally:
                os._exit(code)
        if "kill_after" in task:
            time.sleep(task["kill_after"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(writer)
        counted = os.read(reader, 20)
        os.close(reader)
        answer = {"code": os.waitstatus_to_exitcode(status), "operations": int(counted or -1)}
        say(json.dumps(answer))


if __name__ == "__main__":
    main()
