"""A million queries over a million items by `fastneg mine`, and by FAISS IVF with NumPy."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastneg
from bench.faiss_worker import CORE_TYPES, Worker
from bench.groups.mining_exact import WINDOW, job_of
from bench.groups.mining_ivf import RECALL, recall_of
from bench.report import Goal, Group, Row
from bench.rivals import MissingError
from bench.rounds import second_core, threads_here, use_threads
from bench.vectors import World, cut, mixture, near_positives
from bench.worlds import Scale

TITLE = "Mining, the whole job: a million queries, a million items, ranks 101-500, 10 for each"
SIZE, FAISS_QUERIES, CHECKED, DRAWS = 1_000_000, 16_384, 512, 10
SECONDS, MEMORY_GB, TIMES = 75.0, 4.0, 2.0
_SMALL = 50_000
_ENTRY = """
import sys
from pathlib import Path
from fastneg.cli import run
code = run(sys.argv[1:])
peak = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print("peak kB", peak[0].split()[1])
sys.exit(code)
"""


class Checked(NamedTuple):
    """What a folder of shards holds, read by pyarrow and NumPy alone."""

    rows: int
    draws: int
    positives: int
    outside: int
    items: npt.NDArray[np.int64]  # [n, 10] of the first rows


def run(scale: Scale, group: Group) -> None:
    if importlib.util.find_spec("fastneg.mining.shards") is None:
        group.skip("fastneg mine into a folder", "this fastneg has no jobs in shards")
        return
    world = mixture(scale.size(SIZE), scale.size(SIZE))
    positives = near_positives(world)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, world, positives)
        size = f"{len(world.queries):,} queries, {len(world.items):,} x {world.items.shape[1]}"
        seconds = _ours(group, folder, size)
        facts = json.loads((folder / "mined" / "manifest.json").read_text())["engine"]["facts"]
        found = check(folder / "mined", positives, len(world.items))
        assert found.rows == len(world.queries)
        assert found.outside == 0
        group.add(
            Row(
                "positives among the negatives mined", size, threads_here()[-1],
                float(found.positives), unit="", goal="0", reached=found.positives == 0,
                note=f"every row checked by NumPy: {found.draws:,} negatives, "
                f"{positives[0][-1]:,} positives",
            )
        )  # fmt: skip
        true, among = _true_windows(world, positives)
        _recall_row(group, facts, found, true, size)
        if "nprobe" in facts["effort"] and "num_lists" in facts:
            _rivals(scale, group, folder, facts, true, size, seconds)
        else:
            group.skip("against faiss IVF and NumPy", f"the job chose {facts['search']}", size)
    group.note(
        f"Vectors: {world.name} (bench/vectors.py says how made). Positives: the best 20 of 60 "
        f"items of the query's own cluster; {among:.1%} of them score as high as the last rank of "
        "the window. "
        "Ours is `fastneg mine QUERIES.npy ITEMS.npy --positives FILE.npz --out FOLDER`, a fresh "
        "process from its start to its end: imports, reading, training, calibrating, mining, "
        "writing, syncing; its kernels were compiled before. FAISS and NumPy: train and add to an "
        "IndexIVFFlat with as many lists, search with the same nprobe and k = 500, drop positives, "
        "draw 10 of what is left from rank 101 on, save as npy; the queries' part is timed on some "
        "of them and scaled. One run of each, one after the other."
    )


def write_inputs(
    folder: Path, world: World, positives: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
) -> None:
    """Vectors as npy; positives as SciPy writes a CSR matrix, and as two npy."""
    import scipy.sparse

    indptr, items = positives
    np.save(folder / "queries.npy", world.queries)
    np.save(folder / "items.npy", world.items)
    np.save(folder / "positives_indptr.npy", indptr)
    np.save(folder / "positives_items.npy", items)
    shape = (len(world.queries), len(world.items))
    matrix = scipy.sparse.csr_matrix((np.ones(len(items), np.int8), items, indptr), shape)
    scipy.sparse.save_npz(folder / "positives.npz", matrix, compressed=False)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    """`fastneg mine` in a process that says at its end how much memory it had at most."""
    queries, items = (str(folder / f"{name}.npy") for name in ("queries", "items"))
    words = ["mine", queries, items, "--positives", str(folder / "positives.npz")]
    return [sys.executable, "-c", _ENTRY, *words, "--out", str(out), "--quiet", *more]


def environment() -> dict[str, str]:
    """This fastneg, and no limit on its threads."""
    root = str(Path(fastneg.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root}


def _ours(group: Group, folder: Path, size: str) -> float:
    threads = threads_here()[-1]
    _warm(folder)
    num_items = len(np.load(folder / "items.npy", mmap_mode="r"))
    words = ("--search", "ivf") if num_items < _SMALL else ()  # which would be searched exactly
    both = threads == 1 or second_core()
    started = time.perf_counter()
    done = subprocess.run(
        command(folder, folder / "mined", *words),
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    both = both and (threads == 1 or second_core())
    peak = int(re.findall(r"peak kB (\d+)", done.stdout)[0]) * 1024 / 1e9
    held = sum(path.stat().st_size for path in folder.glob("*.npy")) / 1e9
    time_goal, memory_goal = Goal(SECONDS, at_least=False), Goal(MEMORY_GB, at_least=False)
    group.add(
        Row(
            "fastneg mine", size, threads, seconds, unit="s", goal=time_goal.text(" s"),
            reached=time_goal.reached(seconds),
            note="THE SECOND CORE WAS NOT ALL THERE before or after it" if not both else "",
        )
    )  # fmt: skip
    group.add(
        Row(
            "its peak memory", size, threads, peak, unit="GB", goal=memory_goal.text(" GB"),
            reached=memory_goal.reached(peak),
            note=f"VmHWM, in which mapped files count; vectors and positives are {held:.2f} GB",
        )
    )  # fmt: skip
    return seconds


def _warm(folder: Path) -> None:
    """Small jobs, so that the kernels are in the cache."""
    with tempfile.TemporaryDirectory() as name:
        small = Path(name)
        few = min(4_096, len(np.load(folder / "items.npy", mmap_mode="r")))
        world = mixture(few, 512)
        write_inputs(small, world, near_positives(world))
        for search in ("ivf", "exact"):
            words = command(small, small / search, "--search", search)
            subprocess.run(words, env=environment(), check=True, stdout=subprocess.DEVNULL)


def check(
    mined: Path,
    positives: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    num_items: int,
) -> Checked:
    """Look for every negative of every row among the row's positives."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    indptr, liked = positives
    rows = draws = wrong = outside = 0
    first = []
    for path in sorted(mined.glob("part-*.parquet")):
        table = pq.read_table(path, columns=["query", "items"])
        queries = table["query"].to_numpy()
        lists = table["items"].combine_chunks()
        counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        items = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
        assert (queries == np.arange(rows, rows + len(queries))).all()
        start, stop = rows, rows + len(queries)
        borders = indptr[start : stop + 1]
        owners = np.repeat(np.arange(start, stop), np.diff(borders))
        keys = owners * num_items + liked[borders[0] : borders[-1]]  # ascending
        asked = np.repeat(queries, counts) * num_items + items
        places = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
        wrong += int((keys[places] == asked).sum()) if len(keys) else 0
        outside += int(((items < 0) | (items >= num_items)).sum())
        if start < CHECKED and (counts == DRAWS).all():
            first.append(items.reshape(-1, DRAWS)[: CHECKED - start])
        rows, draws = stop, draws + len(items)
    shown = np.concatenate(first) if first else np.empty((0, DRAWS), np.int64)
    return Checked(rows, draws, wrong, outside, shown)


def _true_windows(world: World, positives: Any) -> tuple[Any, float]:
    """The windows of the first queries, exactly, and how many positives score as high."""
    from fastneg.mining.engines import make_engine
    from fastneg.mining.search import read_positives

    use_threads(threads_here()[-1])
    rows = min(CHECKED, len(world.queries))
    queries = np.ascontiguousarray(world.queries[:rows])
    indptr, items = positives[0][: rows + 1], positives[1][: positives[0][rows]].astype(np.int64)
    lists = read_positives((indptr, items), None, rows, len(world.items), call="bench")
    search = make_engine(job_of(queries, world.items, lists), "exact", 1.0, "cpu").search
    parts = [
        search.find(
            queries[a : a + search.block_rows], lists.rows(a, a + search.block_rows), WINDOW
        )
        for a in range(0, rows, search.block_rows)
    ]
    true, scores = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    owners = np.repeat(np.arange(rows), np.diff(indptr))
    own = np.einsum("nd,nd->n", queries[owners], world.items[items])
    return true, float((own >= scores[owners, -1]).mean())


def _recall_row(group: Group, facts: dict[str, Any], found: Checked, true: Any, size: str) -> None:
    rows = min(len(found.items), len(true))
    inside = [
        np.isin(mined, window)
        for mined, window in zip(found.items[:rows], true[:rows], strict=True)
    ]
    share = float(np.mean(inside)) if rows else float("nan")
    effort = ", ".join(f"{name} {value}" for name, value in facts["effort"].items())
    lists = f" of {facts['num_lists']:,} lists" if "num_lists" in facts else ""
    group.add(
        Row(
            "its window recall, as calibrated", size, ours=facts["recall"], unit="of 1",
            goal=f"≥ {RECALL}", reached=facts["recall"] >= RECALL,
            note=f"search {facts['search']}{', ' * bool(effort)}{effort}{lists}; of "
            f"the negatives mined for the first {rows:,} queries {share:.1%} stand in their true "
            "windows",
        )
    )  # fmt: skip


def _rivals(
    scale: Scale,
    group: Group,
    folder: Path,
    facts: dict[str, Any],
    true: Any,
    size: str,
    seconds: float,
) -> None:
    threads = threads_here()[-1]
    num_queries = len(np.load(folder / "queries.npy", mmap_mode="r"))
    few = min(num_queries, cut(scale, FAISS_QUERIES))
    taken: dict[str, tuple[float, str]] = {}
    for core_type in CORE_TYPES:
        worker = None
        try:
            worker = Worker(folder, core_type, threads)
            made = worker.ask(
                "train_ivf", lists=facts["num_lists"], nprobe=facts["effort"]["nprobe"]
            )
            worker.ask("search", rows=min(few, len(true)))
            worker.ask("keep", rows=min(few, len(true)))
            recall = recall_of(np.load(folder / "found.npy"), true)
            part = worker.ask("mine", rows=few)
        except MissingError as missing:
            group.skip(f"faiss IVF and NumPy, {core_type or 'unset'}", str(missing), size)
            continue
        finally:
            if worker is not None:
                worker.close()
        whole = made["seconds"] + part["seconds"] * num_queries / few
        note = (
            f"{made['seconds']:.0f} s of training and adding, {part['seconds']:.1f} s for {few:,} "
            f"queries, scaled; its window recall, positives not asked for: {recall:.3f}; OpenBLAS "
            f"says {worker.core}"
        )
        taken[worker.name] = whole, note
    best = min(taken, key=lambda name: taken[name][0], default="")
    goal = Goal(TIMES)
    for name, (whole, note) in taken.items():
        ratio = whole / seconds
        group.add(
            Row(
                "fastneg mine", size, threads, seconds, whole, "s",
                f"faiss IVF and NumPy, {name}", (ratio, ratio, ratio),
                goal.text("x") if name == best else "",
                goal.reached(ratio) if name == best else None,
                note=note + ("; its best core type" if name == best else ""),
            )
        )  # fmt: skip
