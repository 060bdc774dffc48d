"""Batched IVF against FAISS's IVF with the same centroids, lists and nprobe."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.faiss_worker import Worker
from bench.groups.mining_exact import (
    MEMORY,
    WINDOW,
    faiss_workers,
    find_all,
    job_of,
)
from bench.report import Goal, Group, Row, compared
from bench.rivals import MissingError
from bench.rounds import Side, Timing, measure, threads_here, use_threads
from bench.vectors import Floats, cut, mixture
from bench.worlds import Scale
from fastneg.mining.engines import make_engine
from fastneg.mining.search import Engine, Search

TITLE = "Mining, batched IVF: ranks 101-500 of a million items of width 64"
QUERIES, FAISS_QUERIES, CHECKED = 131_072, 8_192, 512
RECALL = 0.95
GOALS = {"faiss": 5.0, "big batch": 2.0}
_BIG_BATCH = (("knn_function", 0), ("knn_function", 2), ("pairwise_distances", 0))
_PROBE_ROWS = 32_768  # queries by which the fastest of those is chosen


class _Rival(NamedTuple):
    folder: Path
    workers: list[Worker]
    few: int  # queries that the ordinary search gets
    true: Any  # int32 [n, 400], windows of the first queries


def run(scale: Scale, group: Group) -> None:
    world = mixture(scale.size(1_000_000), cut(scale, QUERIES))
    ivf_rows(scale, group, world.queries, world.items, GOALS)
    group.note(
        f"Vectors: {world.name} (bench/vectors.py says how made). Times are of one query, training "
        "and calibration left out on both sides. FAISS gets our centroids, our lists, our nprobe, "
        "and k = 500; its ordinary search answers query by query, so that fewer of them will do, "
        "big_batch_search gets all of them."
    )


def ivf_rows(
    scale: Scale,
    group: Group,
    queries: Floats,
    items: Floats,
    goals: dict[str, float],
) -> None:
    """All rows of IVF; ``goals`` are those of GOALS, or none."""
    threads = threads_here()[-1]
    use_threads(threads)
    size = f"{len(items):,} x {items.shape[1]}, {len(queries):,} queries"
    engine = make_engine(job_of(queries, items), "ivf", RECALL, "cpu")
    arrays = engine.arrays()
    if "centroids" not in arrays or "list_of_item" not in arrays:
        group.skip("batched IVF", "this fastneg has no IVF of its own", size)
        return
    true = _true_windows(queries, items)
    mine = find_all(engine.search, queries[: len(true)], WINDOW).items
    _recall_row(group, engine, len(arrays["centroids"]), mine, true, size, bool(goals))
    few = min(len(queries), cut(scale, FAISS_QUERIES))
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("items", items), ("queries", queries), *arrays.items()):
            np.save(Path(folder) / f"{name}.npy", array)
        made = ("load_ivf", {"nprobe": engine.effort["nprobe"]})
        workers = faiss_workers(Path(folder), threads, group, made)
        try:
            rival = _Rival(Path(folder), workers, few, true)
            _timed(scale, group, engine.search, queries, size, rival, goals)
        except MissingError as missing:
            group.skip("against faiss", str(missing), size)
        finally:
            for worker in workers:
                worker.close()


def _timed(
    scale: Scale,
    group: Group,
    search: Search,
    queries: Floats,
    size: str,
    rivals: _Rival,
    goals: dict[str, float],
) -> None:
    folder, workers, few, true = rivals
    threads = threads_here()[-1]
    ours = Side("ours", lambda: find_all(search, queries, WINDOW), len(queries), threads, calls=1)
    plain = [
        Side(f"faiss {w.name}", lambda w=w: w.ask("search", rows=few), few, threads, calls=1)
        for w in workers
    ]
    timing = measure([ours, *plain], rounds=scale.few(0.25))
    recalls = {f"faiss {w.name}": _recall_of(w, folder, true) for w in workers}
    names = [side.name for side in plain]
    best = timing.fastest(names, threads) if names else ""
    for worker, name in zip(workers, names, strict=True):
        bound = goals.get("faiss") if name == best or worker.name == "Haswell" else None
        note = f"window recall {recalls[name]:.3f}; k = 500, {few:,} queries; OpenBLAS says "
        note += worker.core + ("; its best core type" if name == best else "")
        group.add(_row(timing, "search", size, threads, name, bound, note))
    if not best:
        return
    rival = workers[names.index(best)]
    rows = min(len(queries), cut(scale, _PROBE_ROWS))
    taken = {
        way: float(rival.ask("big_batch", rows=rows, method=way[0], threaded=way[1])["seconds"])
        for way in _BIG_BATCH
    }
    method, threaded = min(taken, key=lambda way: taken[way])

    def batched() -> Any:
        return rival.ask("big_batch", rows=len(queries), method=method, threaded=threaded)

    big = Side("big_batch_search", batched, len(queries), threads, calls=1, warm=False)
    timing = measure([ours, big], rounds=scale.few(0.15))
    ways = ", ".join(f"{way[0]} threaded={way[1]} {taken[way]:.1f} s" for way in _BIG_BATCH)
    note = f"window recall {_recall_of(rival, folder, true):.3f}; {rival.name}, {method}, "
    note += f"threaded={threaded}: the fastest with {rows:,} queries ({ways})"
    bound = goals.get("big batch")
    group.add(_row(timing, "search", size, threads, "big_batch_search", bound, note))


def _row(
    timing: Timing,
    what: str,
    size: str,
    threads: int,
    other: str,
    bound: float | None,
    note: str,
) -> Row:
    return compared(
        what,
        size,
        threads,
        timing.figure("ours", threads),
        timing.figure(other, threads),
        timing.ratio(other, "ours", threads),
        against=other,
        goal=None if bound is None else Goal(bound),
        unit="µs",
        scale=1e-3,
        note=note,
    )


def _true_windows(queries: Floats, items: Floats) -> Any:
    """int32 [n, 400]: the windows of the first queries, exactly."""
    first = queries[: min(CHECKED, len(queries))]
    return find_all(make_engine(job_of(first, items), "exact", 1.0, "cpu").search, first, WINDOW)[0]


def recall_of(found: Any, true: Any) -> float:
    """The share of the true windows' members that stand in the windows found."""
    rows = min(len(found), len(true))
    pairs = zip(found[:rows], true[:rows], strict=True)
    hits = sum(int(np.isin(t[t >= 0], f).sum()) for f, t in pairs)
    return hits / int((true[:rows] >= 0).sum())


def _recall_of(worker: Worker, folder: Path, true: Any) -> float:
    worker.ask("keep", rows=len(true))
    return recall_of(np.load(folder / "found.npy"), true)


def _recall_row(
    group: Group, engine: Engine, lists: int, found: Any, true: Any, size: str, judged: bool
) -> None:
    nprobe = engine.effort["nprobe"]
    group.add(
        Row(
            "window recall of ours, as calibrated",
            size,
            ours=engine.recall,
            unit="of 1",
            goal=f"≥ {RECALL}, nprobe ≥ 16" if judged else "",
            reached=bool(engine.recall >= RECALL and nprobe >= 16) if judged else None,
            note=f"on {engine.recall_queries:,} queries of the engine's choice; "
            f"{recall_of(found, true):.4f} on the first {len(true):,}; nprobe {nprobe} of "
            f"{lists:,} lists; memory {MEMORY / 2**30:g} GiB",
        )
    )
