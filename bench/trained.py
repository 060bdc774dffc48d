"""Training runs with settings chosen on validation, kept in a file as they end.

A ``Line`` is one set-up with the settings to try. Its runs are a grid with seed 0, judged on
validation alone, and then three seeds with the settings that won, trained again on train and
validation for the epochs that validation chose, which meet the test set. A run that stands in the
file is not made again, so what was interrupted goes on.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.worlds import data_folder
from fastneg import Interactions
from fastneg.errors import FastnegError
from fastneg.recipes import train_recipe
from fastneg.training.evaluation import evaluate

SEEDS = (0, 1, 2)
CHOSEN_BY = "ndcg@20"
K = 20

Runs = dict[str, dict[str, Any]]
Stored = dict[str, Runs]


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        name: of the line.
        data: a folder of ``FASTNEG_DATA`` (gowalla, yelp2018, ml-1m), or a public data set of the
            package's own (movielens, tafeng).
        recipe: named set-up.
        settings: the same in every run of the line.
        grid: what is tried on validation, every combination.
        bands: lowest training counts of the second popularity band and those after it, for
            metrics by band; None: none.
    """

    name: str
    data: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    bands: tuple[int, ...] | None = None


def trials(line: Line) -> Iterator[dict[str, Any]]:
    """The settings to try: every point of the grid on top of the line's own."""
    for values in itertools.product(*line.grid.values()):
        yield {**line.settings, **dict(zip(line.grid, values, strict=True))}


def run_key(kind: str, line: Line, settings: Mapping[str, Any], seed: int) -> str:
    """What a run is stored under: all that it depends on, but for the code."""
    return json.dumps([kind, line.recipe, settings, seed], sort_keys=True)


def measure(line: Line, path: Path, stored: Stored, *, tune_only: bool = False) -> None:
    """Make the runs of a line that are not stored yet; each is written to ``path`` as it ends."""
    runs = stored.setdefault(line.name, {})

    def make(kind: str, settings: dict[str, Any], seed: int) -> None:
        key = run_key(kind, line, settings, seed)
        if key in runs:
            return
        _say(f"{line.name}, {kind}, seed {seed}: {shown(line, settings)}")
        runs[key] = _run(line, settings, seed, refit=kind == "test")
        _say(f"  validation {CHOSEN_BY} {runs[key]['validation'][CHOSEN_BY]:.4f}, "
             f"{runs[key]['seconds']:.0f} s")  # fmt: skip
        save(path, stored)

    points = list(trials(line))
    if len(points) > 1 or tune_only:
        for settings in points:
            make("tune", settings, 0)
    if tune_only:
        return
    best, _ = choose(line, runs)
    for seed in SEEDS:
        make("test", best, seed)


def choose(line: Line, runs: Runs) -> tuple[dict[str, Any], int]:
    """The point of the grid with the best validation NDCG@20, and how many were tried."""
    points = list(trials(line))
    if len(points) == 1:
        return points[0], 1
    tried = [
        (runs[key]["validation"][CHOSEN_BY], settings)
        for settings in points
        if (key := run_key("tune", line, settings, 0)) in runs
    ]
    return max(tried, key=lambda pair: pair[0])[1], len(tried)


def finished(line: Line, runs: Runs) -> list[dict[str, Any]]:
    """The runs that met the test set, one a seed; empty while any is missing."""
    points = list(trials(line))
    if len(points) > 1 and any(run_key("tune", line, one, 0) not in runs for one in points):
        return []
    best, _ = choose(line, runs)
    keys = [run_key("test", line, best, seed) for seed in SEEDS]
    return [runs[key] for key in keys] if all(key in runs for key in keys) else []


def means(runs: list[dict[str, Any]], metric: str) -> tuple[float, float]:
    """(mean, standard deviation) over the seeds; NaN where a run has none of that name."""
    values = np.array([run["test"].get(metric, np.nan) for run in runs])
    return float(values.mean()), float(values.std(ddof=1))


def shown(line: Line, settings: Mapping[str, Any]) -> str:
    """Settings in words, those of the line first."""
    names = [*line.settings, *(name for name in line.grid if name not in line.settings)]
    return ", ".join(f"{name} {settings[name]}" for name in names) or "the recipe's own settings"


def grid_text(line: Line) -> str:
    """The grid in words."""
    sides = " x ".join(f"{name} {', '.join(map(str, v))}" for name, v in line.grid.items())
    return sides or "one point"


def _run(line: Line, settings: dict[str, Any], seed: int, *, refit: bool) -> dict[str, Any]:
    train, test = read(line.data)
    started = time.perf_counter()
    result = train_recipe(train, recipe=line.recipe, settings=settings, seed=seed, refit=refit)
    found = result.metrics
    run = {"validation": found["validation"], "epoch": found["epoch"]}
    run["seconds"] = round(time.perf_counter() - started, 1)
    run["when"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
    if refit:
        model = result.model
        run["test"] = evaluate(
            model.user_vectors(), model.item_vectors(), train=train, test=test, k=(K,),
            bands=line.bands, scores_cold_users=model.scores_cold_users,
        ).metrics  # fmt: skip
    return run


@functools.cache
def read(data: str) -> tuple[Interactions, Interactions]:
    """Train and test of a data set, in the same codes.

    Raises:
        FastnegError: the data are not there.
    """
    if data in ("movielens", "tafeng"):
        from fastneg.data.movielens import load_movielens_100k
        from fastneg.data.tafeng import load_tafeng
        from fastneg.demo import split_for

        loaded = load_movielens_100k() if data == "movielens" else load_tafeng()
        train, test, _ = split_for(loaded)
        return train, test
    import scipy.sparse

    folder = data_folder()
    if folder is None:
        raise FastnegError(f"no data: set FASTNEG_DATA to the folder of {data}, ...")
    parts = [
        scipy.sparse.load_npz(folder / data / f"{part}.npz").tocsr() for part in ("train", "test")
    ]
    return Interactions.from_csr(parts[0]), Interactions.from_csr(parts[1])


def _say(text: str) -> None:
    print(f"{dt.datetime.now():%H:%M} {text}", flush=True)


# Files -------------------------------------------------------------------------------------------


def load(path: Path) -> Stored:
    """Runs by line and key; empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(path: Path, stored: Stored) -> None:
    """Write the runs."""
    replace(path, json.dumps(stored, indent=1, sort_keys=True) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a file by a temporary name that is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
