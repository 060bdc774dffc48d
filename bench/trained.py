"""Training runs with settings chosen on validation, kept in a file as they end.

A ``Line`` is one set-up with the settings to try. Its runs are a grid with seed 0, judged on
validation alone, and then three seeds with the settings that won, trained on train and validation
together for the epochs that validation chose, which meet the test set. A run that stands in the
file is not made again, so what was interrupted goes on; several processes may share a file.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.worlds import data_folder
from fastneg import Interactions
from fastneg.data.features import FeatureTable
from fastneg.data.splits import hold_out_validation
from fastneg.errors import FastnegError
from fastneg.mining.diagnose import diagnose_window
from fastneg.recipes import recipe, train_recipe
from fastneg.training.evaluation import evaluate
from fastneg.training.rounds import train_rounds

SEEDS = (0, 1, 2)
CHOSEN_BY = "ndcg@20"
K = 20

Grid = Mapping[str, Sequence[Any]]
Runs = dict[str, dict[str, Any]]
Stored = dict[str, Runs]

_RATED = ("movielens-4", "movielens-rated")


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        name: of the line.
        data: a folder of ``FASTNEG_DATA`` (gowalla, yelp2018, ml-1m), or a public data set of the
            package's own: movielens, tafeng, movielens-4 (where ratings below 4, up to the user's
            last training film, are explicit negatives), movielens-rated (that, and a film's genre
            for the item tower).
        recipe: named set-up.
        settings: the same in every run of the line.
        grid: what is tried on validation, every combination; several grids one after the other.
            A "recipe" among the settings replaces the line's.
        bands: lowest training counts of the second popularity band and those after it, for
            metrics by band; None: none.
        windows: of ranks, to be diagnosed with the model that validation chose.
    """

    name: str
    data: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Grid | Sequence[Grid] = field(default_factory=dict)
    bands: tuple[int, ...] | None = None
    windows: tuple[tuple[int, int], ...] = ()


def grids(line: Line) -> tuple[Grid, ...]:
    """The grids of a line."""
    return (line.grid,) if isinstance(line.grid, Mapping) else tuple(line.grid)


def trials(line: Line) -> Iterator[dict[str, Any]]:
    """The settings to try: every point of the grids on top of the line's own."""
    for grid in grids(line):
        for values in itertools.product(*grid.values()):
            yield {**line.settings, **dict(zip(grid, values, strict=True))}


def run_key(kind: str, line: Line, settings: Mapping[str, Any], seed: int) -> str:
    """What a run of a line is stored under: all but data, code and the recipe's own settings."""
    return json.dumps([kind, line.recipe, settings, seed], sort_keys=True)


def measure(line: Line, path: Path, *, tune_only: bool = False) -> None:
    """Make the runs of a line that are not stored yet; each is written to ``path`` as it ends."""
    for settings in trials(line):
        _make("tune", line, settings, 0, path)
    if tune_only:
        return
    for seed in SEEDS:
        _make("test", line, final(line, load(path)[line.name]), seed, path)


def _make(kind: str, line: Line, settings: dict[str, Any], seed: int, path: Path) -> None:
    key = run_key(kind, line, settings, seed)
    known = load(path).get(line.name, {}).get(key)
    if known is not None and (kind != "tune" or len(known.get("windows", [])) == len(line.windows)):
        return
    _say(f"{line.name}, {kind}, seed {seed}: {shown(line, settings)}")
    started = time.perf_counter()
    run = (_tune if kind == "tune" else _test)(line, settings, seed)
    run["seconds"] = round(time.perf_counter() - started, 1)
    run["when"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
    run["threads"] = torch.get_num_threads()
    store(path, line.name, key, run)
    metrics = {**run.get("validation", {}), **run.get("test", {})}
    _say(f"  epochs {run['epochs']}, {CHOSEN_BY} {metrics[CHOSEN_BY]:.4f}, {run['seconds']:.0f} s")


def choose(line: Line, runs: Runs) -> tuple[dict[str, Any], int]:
    """The point of the grid with the best validation NDCG@20, and how many runs were tried.

    Runs that are stored and no point of the grid any more count as tried.
    """
    tried = [
        (runs[key]["validation"][CHOSEN_BY], settings)
        for settings in trials(line)
        if (key := run_key("tune", line, settings, 0)) in runs
    ]
    count = sum(json.loads(key)[0] == "tune" for key in runs)
    return max(tried, key=lambda pair: pair[0])[1], count


def final(line: Line, runs: Runs) -> dict[str, Any]:
    """The settings that won, for the epochs that validation chose with them."""
    best, _ = choose(line, runs)
    return {**best, "epochs": runs[run_key("tune", line, best, 0)]["epochs"]}


def finished(line: Line, runs: Runs) -> list[dict[str, Any]]:
    """The runs that met the test set, one a seed; empty while any is missing."""
    if any(run_key("tune", line, one, 0) not in runs for one in trials(line)):
        return []
    settings = final(line, runs)
    keys = [run_key("test", line, settings, seed) for seed in SEEDS]
    return [runs[key] for key in keys] if all(key in runs for key in keys) else []


def means(runs: list[dict[str, Any]], metric: str) -> tuple[float, float]:
    """(mean, standard deviation) over the seeds; NaN where a run has none of that name."""
    values = np.array([run["test"].get(metric, np.nan) for run in runs])
    return float(values.mean()), float(values.std(ddof=1))


def shown(line: Line, settings: Mapping[str, Any]) -> str:
    """Settings in words, those of the line first."""
    tried = {name: None for grid in grids(line) for name in grid}
    names = dict.fromkeys([*line.settings, *tried])
    words = [f"{name} {settings[name]}" for name in names if name in settings]
    return ", ".join(words) or "the recipe's own settings"


def grid_text(line: Line) -> str:
    """The grids in words."""
    return "; ".join(
        " x ".join(f"{name} {', '.join(map(str, v))}" for name, v in grid.items()) or "one point"
        for grid in grids(line)
    )


def recipe_of(line: Line, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The recipe's name and the settings of a point."""
    return settings.get("recipe", line.recipe), {
        name: value for name, value in settings.items() if name != "recipe"
    }


def _tune(line: Line, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A run that sees train and validation."""
    train, _ = read(line.data)
    name, values = recipe_of(line, settings)
    features = item_features(line.data)
    result = train_recipe(train, recipe=name, settings=values, seed=seed, item_features=features)
    rounds = result.metrics["rounds"][: result.metrics["round"]]
    run = {
        "validation": result.metrics["validation"],
        "epochs": [one["epoch"] for one in rounds],
    }
    if line.windows:
        run["windows"] = [_diagnosis(result.model, train, seed, one) for one in line.windows]
    return run


def _diagnosis(
    model: Any, train: Interactions, seed: int, window: tuple[int, int]
) -> dict[str, Any]:
    """Where the validation positives of ``train_recipe`` fall, as one model ranks them."""
    known, held_out = hold_out_validation(train, seed=seed)
    found = diagnose_window(
        model.user_vectors(), model.item_vectors(), known, held_out,
        window=window, query_users=np.arange(train.num_users), seed=seed,
    )  # fmt: skip
    return {
        "window": list(window),
        "share": found.window.share,
        "lift": found.window.lift,
        "verdict": found.verdict,
        "suggested": None if found.suggested is None else list(found.suggested),
    }


def _test(line: Line, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A run on all training pairs for given epochs, and what it reaches on the test set."""
    train, test = read(line.data)
    epochs = list(settings["epochs"])
    name, changes = recipe_of(line, settings)
    values = recipe(name).settings({**changes, "epochs": max(epochs), "seed": seed})
    features = item_features(line.data)
    model = train_rounds(train, values, epochs=epochs, item_features=features).model
    found = evaluate(
        model.user_vectors(), model.item_vectors(), train=train, test=test, k=(K,),
        bands=line.bands, scores_cold_users=model.scores_cold_users,
    )  # fmt: skip
    return {"test": found.metrics, "epochs": epochs}


@functools.cache
def read(data: str) -> tuple[Interactions, Interactions]:
    """Train and test of a data set, in the same codes.

    Raises:
        FastnegError: the data are not there.
    """
    if data in ("movielens", *_RATED, "tafeng"):
        from fastneg.data.movielens import load_movielens_100k
        from fastneg.data.tafeng import load_tafeng
        from fastneg.demo import split_for

        rating = 4 if data in _RATED else None
        loaded = load_tafeng() if data == "tafeng" else load_movielens_100k(min_rating=rating)
        train, test, _ = split_for(loaded)
        return (_until_the_split(train) if data in _RATED else train), test
    import scipy.sparse

    folder = data_folder()
    if folder is None:
        raise FastnegError(f"no data: set FASTNEG_DATA to the folder of {data}, ...")
    parts = [
        scipy.sparse.load_npz(folder / data / f"{part}.npz").tocsr() for part in ("train", "test")
    ]
    return Interactions.from_csr(parts[0]), Interactions.from_csr(parts[1])


def _until_the_split(train: Interactions) -> Interactions:
    """Without rejections later than a user's last training positive, which are the test's time."""
    times, weights, users = train.row_times, train.row_weights, train.row_users
    assert times is not None
    assert weights is not None
    last = np.full(train.num_users, np.iinfo(np.int64).min)
    np.maximum.at(last, users[weights > 0], times[weights > 0])
    return train.select((weights > 0) | (times <= last[users]))


@functools.cache
def item_features(data: str) -> FeatureTable | None:
    """What the towers are given besides ids: of "movielens-rated" the rarest of a film's genres."""
    if data != "movielens-rated":
        return None
    from fastneg.data.movielens import load_movielens_100k

    loaded = load_movielens_100k()
    assert loaded.item_features is not None
    genres = loaded.item_features.multi["genres"]
    films = np.bincount(genres.codes, minlength=genres.num_categories)
    markets = []
    for begin, end in itertools.pairwise(genres.indptr):
        codes = genres.codes[begin:end]
        markets.append(genres.categories[codes[films[codes].argmin()]] if len(codes) else None)
    ids = loaded.interactions.item_ids
    return FeatureTable.from_table({"id": ids, "market": markets}, ids=ids)


def _say(text: str) -> None:
    print(f"{dt.datetime.now():%H:%M} {text}", flush=True)


# Files -------------------------------------------------------------------------------------------


def load(path: Path) -> Stored:
    """Runs by line and key; empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def store(path: Path, line: str, key: str, run: dict[str, Any]) -> None:
    """Add a run to the file, whatever other processes have added meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = load(path)
        stored.setdefault(line, {})[key] = run
        replace(path, json.dumps(stored, indent=1, sort_keys=True) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a file by a temporary name that is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
