"""Exact search over a million items, against FAISS flat search and torch, and against itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench import multiply_only
from bench.faiss_worker import CORE_TYPES, DEPTH, Worker
from bench.report import Goal, Group, Row, absolute, compared
from bench.rivals import MissingError
from bench.rounds import Side, Timing, measure, threads_here, use_threads
from bench.vectors import Floats, cut, mixture
from bench.worlds import Scale
from fastneg import mine_hard_negatives
from fastneg.mining.engines import make_engine
from fastneg.mining.job import Job
from fastneg.mining.packed import HAS_AMX
from fastneg.mining.search import PositiveLists, RankWindow, Search, no_positives
from fastneg.mining.window import WindowRules

TITLE = "Mining, exact search: ranks 101-500 of a million items of width 64"
WINDOW = (101, DEPTH)
MEMORY = 1 << 30
QUERIES, TORCH_QUERIES, CHECKED = 8_192, 512, 256
_ROUNDS = 3  # a round takes a minute and more: the rivals are slow
_OWN_ROUNDS = 9  # the search and its products side by side, a few seconds each
GOALS = {"Haswell": 3.0, "unset": 7.0, "best": 2.5, "torch": 4.0}
_TIE = 1e-5  # of |q||x|


def run(scale: Scale, group: Group) -> None:
    world = mixture(scale.size(1_000_000), cut(scale, QUERIES))
    exact_rows(scale, group, world.queries, world.items, GOALS)
    group.note(
        f"Vectors: {world.name} (bench/vectors.py says how made); one inner product for each pair. "
        "Times are of one query. What a search does once (packing, an index) is outside, but for "
        "the whole call, which makes its engine and draws 10 of the window too. FAISS and torch "
        f"find their best {DEPTH}: FAISS of all queries (of fewer than 2,000 it makes its products "
        "one by one, ten times as slowly), torch of some of them, in blocks that all queries would "
        "be cut into as well. Selection's share is 1 less "
        "the time of the same products alone, in the same order and on the same threads, over the "
        "search's; stretches of items that are too short to matter are multiplied by neither. "
        f"faiss-cpu {version('faiss-cpu')}; matrix tiles: {'used' if HAS_AMX else 'not here'}."
    )


def job_of(
    queries: Floats, items: Floats, lists: PositiveLists | None = None, seed: int = 0
) -> Job:
    """What the engines are made for."""
    rules = WindowRules(
        num_negatives=10, strategy="uniform", temperature=1.0, min_score=None, max_score=None,
        absolute_margin=None, relative_margin=None, query_groups=None, item_groups=None,
        group_rule="same", max_per_item=None, seed=seed,
    )  # fmt: skip
    lists = no_positives(len(queries)) if lists is None else lists
    return Job(queries, items, lists, (WINDOW[0], min(WINDOW[1], len(items))), rules, MEMORY)


def find_all(search: Search, queries: Floats, window: tuple[int, int]) -> RankWindow:
    """The windows of all queries, in the engine's blocks."""
    parts = [
        search.find(part, no_positives(len(part)), window)
        for part in np.split(queries, range(search.block_rows, len(queries), search.block_rows))
    ]
    items, scores = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    return RankWindow(items, scores, window[0])


def exact_rows(
    scale: Scale, group: Group, queries: Floats, items: Floats, goals: dict[str, float]
) -> None:
    """All rows of exact search; ``goals`` are those of GOALS, or none."""
    threads = threads_here()[-1]
    use_threads(threads)
    search = make_engine(job_of(queries, items), "exact", 0.95, "cpu").search
    size = f"{len(items):,} x {items.shape[1]}, {len(queries):,} queries"
    found = find_all(search, queries, WINDOW)
    _agreement(group, search, queries, items, size, bool(goals))
    ours = Side("ours", lambda: find_all(search, queries, WINDOW), len(queries), threads, calls=1)
    whole = Side("whole", _whole_call(queries, items), len(queries), threads, calls=1)
    bare, share = _multiplication(search, queries, items, found)
    alone = Side("multiplication", bare, len(queries), threads, calls=1)
    rows, few = len(queries), min(len(queries), cut(scale, TORCH_QUERIES))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "items.npy", items)
        np.save(Path(folder) / "queries.npy", queries)
        workers = faiss_workers(Path(folder), threads, group, ("load_flat", {}))
        try:
            rivals = [
                Side(f"faiss {w.name}", lambda w=w: w.ask("search", rows=rows), rows, threads, 1)
                for w in workers
            ] + [
                Side(name, call, few, threads, calls=1)
                for name, call in torch_calls(queries[:few], items).items()
            ]
            timing = measure([ours, whole, *rivals], rounds=_ROUNDS)
        finally:
            for worker in workers:
                worker.close()
    _rival_rows(group, timing, size, threads, workers, few, goals)
    timing = measure([ours, alone], rounds=_OWN_ROUNDS)
    _own_rows(group, timing, size, threads, share, bool(goals), search)


def faiss_workers(
    folder: Path, threads: int, group: Group, first: tuple[str, dict[str, Any]]
) -> list[Worker]:
    """A process for each core type, its index made; those that fail are skipped rows."""
    workers = []
    for core_type in CORE_TYPES:
        name = f"against faiss, OPENBLAS_CORETYPE {core_type or 'unset'}"
        worker = None
        try:
            worker = Worker(folder, core_type, threads)
            worker.ask(first[0], **first[1])
            workers.append(worker)
        except MissingError as missing:
            group.skip(name, str(missing))
            if worker is not None:
                worker.close()
    return workers


def torch_calls(queries: Floats, items: Floats) -> dict[str, Callable[[], Any]]:
    """torch.matmul and topk in blocks: rows by all items, and tiles whose best are merged."""
    import torch

    calls: dict[str, Callable[[], Any]] = {}
    depth = min(DEPTH, len(items))
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        left, right = (torch.tensor(v).to(dtype) for v in (queries, items))

        def rows(left: Any = left, right: Any = right) -> Any:
            found = [torch.topk(part @ right.T, depth) for part in torch.split(left, 128)]
            return torch.cat([best.indices for best in found])

        def tiles(left: Any = left, right: Any = right) -> Any:
            scores, places, start = [], [], 0
            for tile in torch.split(right, 65_536):
                best = torch.topk(left @ tile.T, min(depth, len(tile)))
                scores.append(best.values)
                places.append(best.indices + start)
                start += len(tile)
            merged = torch.topk(torch.cat(scores, 1), depth).indices
            return torch.gather(torch.cat(places, 1), 1, merged)

        expected = (len(queries), depth)
        assert rows().shape == tiles().shape == expected
        calls[f"torch {name}, rows"], calls[f"torch {name}, tiles"] = rows, tiles
    return calls


def _whole_call(queries: Floats, items: Floats) -> Callable[[], None]:
    def call() -> None:
        mined = mine_hard_negatives(
            queries, items, window=WINDOW, search="exact", memory=MEMORY, progress=False
        )
        assert (mined.items >= 0).all()
        assert (mined.ranks >= WINDOW[0]).all()

    return call


def _multiplication(
    search: Search, queries: Floats, items: Floats, found: RankWindow
) -> tuple[Callable[[], None], float]:
    """The same search's products alone, and the share of all products it makes."""
    arithmetic = search.facts().get("arithmetic")
    if HAS_AMX and arithmetic == "tiles":
        return multiply_only.by_tiles(queries, items, found.scores[:, -1])
    tile = min(4_096, len(items))
    half = arithmetic == "bfloat16"
    return multiply_only.by_torch(queries, items, search.block_rows, tile, half=half), 1.0


def _rival_rows(
    group: Group,
    timing: Timing,
    size: str,
    threads: int,
    workers: list[Worker],
    few: int,
    goals: dict[str, float],
) -> None:
    names = [f"faiss {worker.name}" for worker in workers]
    best = timing.fastest(names, threads) if names else ""

    def add(what: str, mine: str, other: str, bound: float | None, note: str) -> None:
        group.add(
            compared(
                what, size, threads, timing.figure(mine, threads), timing.figure(other, threads),
                timing.ratio(other, mine, threads), against=other,
                goal=None if bound is None else Goal(bound), unit="µs", scale=1e-3, note=note,
            )
        )  # fmt: skip

    for worker, name in zip(workers, names, strict=True):
        note = f"k = {DEPTH}, the same queries; OpenBLAS says {worker.core}"
        add("search", "ours", name, goals.get(worker.name), note)
        if name == best:
            add("search, against FAISS's best core type", "ours", name, goals.get("best"), "")
    torches = [n for n in timing.names() if n.startswith("torch")]
    fastest = timing.fastest(torches, threads)
    for name in torches:
        bound = goals.get("torch") if name == fastest else None
        note = f"{few:,} queries" + ("; the fastest way with torch" if name == fastest else "")
        add("search", "ours", name, bound, note)
    for name in [best, fastest] if best else [fastest]:
        add("whole mine_hard_negatives call", "whole", name, None, "")


def _own_rows(
    group: Group,
    timing: Timing,
    size: str,
    threads: int,
    share: float,
    judged: bool,
    search: Search,
) -> None:
    kept = timing.kept(threads)
    times = [timing.times[name, threads] for name in ("ours", "multiplication")]
    shares = timing.spread([1.0 - times[1][r] / times[0][r] for r in kept])
    group.add(
        absolute(
            "selection's share of the search's time", size, threads, shares,
            goal=Goal(1 / 3, at_least=False) if judged else None, unit="of 1",
            note=f"arithmetic: {search.facts().get('arithmetic')}; the same products alone take "
            f"{timing.figure('multiplication', threads).median * 1e-3:.1f} µs a query, "
            f"{share:.0%} of all pairs are multiplied",
        )
    )  # fmt: skip


def _agreement(
    group: Group, search: Search, queries: Floats, items: Floats, size: str, judged: bool
) -> None:
    """Ids at ranks 1 .. 500 against float64, ties to the lower id."""
    chosen = np.unique(np.linspace(0, len(queries) - 1, CHECKED).astype(np.int64))
    depth = min(DEPTH, len(items))
    found = find_all(search, np.ascontiguousarray(queries[chosen]), (1, depth)).items
    wide, lengths = items.astype(np.float64), np.linalg.norm(items.astype(np.float64), axis=1)
    same, farthest = 0, 0.0
    for row, query in zip(found, queries[chosen].astype(np.float64), strict=True):
        scores = wide @ query
        likely = np.argpartition(-scores, depth - 1)[:depth]
        bound = scores[likely].min()
        likely = np.flatnonzero(scores >= bound)  # all of the ties at the end
        order = likely[np.lexsort((likely, -scores[likely]))][:depth]
        equal = order == row
        same += int(equal.sum())
        away = np.abs(scores[order] - scores[row]) / (np.linalg.norm(query) * lengths[row])
        farthest = max(farthest, float(away[~equal].max(initial=0.0)))
    agreed = same / found.size
    group.add(
        Row(
            "the same ids as float64 brute force at ranks 1-500",
            f"{size}, {len(chosen)} of them checked",
            ours=100 * agreed,
            unit="%",
            goal="≥ 99.9 %, differences within 1e-5 |q||x|" if judged else "",
            reached=bool(agreed >= 0.999 and farthest <= _TIE) if judged else None,
            note=f"{found.size - same:,} of {found.size:,} positions differ, by scores at most "
            f"{farthest:.2g} |q||x| apart",
        )
    )
