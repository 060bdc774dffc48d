"""Recipes as they are shipped: before and after a change of defaults, and beside ten tuning runs.

python -m bench.defaults --label now               # every recipe of the table on every set
python -m bench.defaults --label now --only gowalla-sparse
python -m bench.defaults --label now --recipe bpr --seeds 0,1
python -m bench.defaults --tune                    # ten points on validation, gowalla-sparse;
                                                   # the best of them meets the test set
python -m bench.defaults --report                  # write DEFAULTS.md from what is stored

For figures of another commit, run this file as a script with that commit's checkout first on
PYTHONPATH, and another label: ``PYTHONPATH=OTHER:THIS python bench/defaults.py --label before``.
Runs are stored in defaults.json as they end; what is stored is not made again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from bench import machine, trained
from bench.worlds import data_folder
from fastneg import Interactions
from fastneg.errors import FastnegError
from fastneg.recipes import train_recipe

HERE = Path(__file__).resolve().parent
BEFORE, NOW = "before", "now"
RECIPES = (
    "full-softmax",
    "mixed-negative-sampling",
    "sampled-softmax",
    "in-batch-logq",
    "bpr",
    "facebook-ebr",
)
SETS = ("movielens", "gowalla-sparse", "ml-1m", "gowalla")
SPARSE_USERS, SPARSE_ITEMS, ROWS = 14_400, 10_000, (5, 10)

# what is tried of each recipe on the thinned set, on top of its own settings
TRIALS: dict[str, Sequence[Mapping[str, Any]]] = {
    "in-batch-logq": (
        {"batch_size": 256},
        {"batch_size": 512},
        {"batch_size": 1024},
        {"batch_size": 2048},
        {"batch_size": 512, "learning_rate": 2e-3},
        {"batch_size": 1024, "average_decay": 0.8},
        {"average_decay": 0.8},
        {"temperature": 0.15},
        {"temperature": 0.15, "average_decay": 0.8},
        {"temperature": 0.15, "learning_rate": 1e-2},
    ),
    "sampled-softmax": (
        {"batch_size": 256},
        {"batch_size": 512},
        {"batch_size": 2048},
        {"batch_size": 1024, "average_decay": 0.8},
        {"average_decay": 0.8},
        {"temperature": 0.15},
        {"temperature": 0.15, "average_decay": 0.8},
        {"temperature": 0.15, "learning_rate": 1e-2},
        {"num_negatives": 1024},
        {"num_negatives": 1024, "temperature": 0.15},
    ),
    "bpr": (
        {"batch_size": 512, "l2": 1e-2, "average_decay": 0.0, "learning_rate": 2e-3},
        {"batch_size": 256, "l2": 5e-2, "average_decay": 0.0, "learning_rate": 5e-3},
        {"batch_size": 512, "l2": 5e-2, "average_decay": 0.0, "learning_rate": 5e-3},
        {"batch_size": 1024, "l2": 1e-2, "average_decay": 0.0, "learning_rate": 5e-3},
        {"batch_size": 2048, "l2": 1e-2, "average_decay": 0.0, "learning_rate": 5e-3},
        {"batch_size": 512, "l2": 5e-2, "average_decay": 0.0, "learning_rate": 2e-3},
        {"batch_size": 512, "l2": 5e-2, "average_decay": 0.8, "learning_rate": 2e-3},
        {"batch_size": 512, "l2": 2e-2, "average_decay": 0.8, "learning_rate": 5e-3},
        {"batch_size": 2048, "l2": 5e-2, "average_decay": 0.8, "learning_rate": 2e-3},
        {"batch_size": 2048, "l2": 5e-2, "average_decay": 0.8, "learning_rate": 5e-3},
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.defaults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--label", help="whose figures: train the recipes as they are")
    parser.add_argument("--only", default="", help="sets whose names begin so")
    parser.add_argument("--recipe", default="", help="recipes whose names begin so")
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument("--tune", action="store_true", help="ten points on validation")
    parser.add_argument("--report", action="store_true", help="write DEFAULTS.md, train nothing")
    parser.add_argument("--out", default=str(HERE), help="folder of DEFAULTS.md, defaults.json")
    options = parser.parse_args(arguments)
    path = Path(options.out) / "defaults.json"
    recipes = [name for name in RECIPES if name.startswith(options.recipe)]
    if options.label:
        for data in (one for one in SETS if one.startswith(options.only)):
            for recipe in recipes:
                for seed in map(int, options.seeds.split(",")):
                    make(path, options.label, data, recipe, {}, seed)
    if options.tune:
        for recipe in (one for one in recipes if one in TRIALS):
            for settings in TRIALS[recipe]:
                make(path, "tune", "gowalla-sparse", recipe, settings, 0)
            best, _ = chosen(trained.load(path), recipe)
            make(path, "best", "gowalla-sparse", recipe, best, 0)
    if options.report:
        text = markdown(trained.load(path), machine.facts())
        trained.replace(path.with_name("DEFAULTS.md"), text)
        sys.stdout.write(text)
    return 0


def make(
    path: Path, label: str, data: str, recipe: str, settings: Mapping[str, Any], seed: int
) -> None:
    """One run, stored as it ends: the epoch is chosen on validation, then the test set met.

    A run labelled ``"tune"`` does not see the test set.
    """
    key = _key(data, recipe, settings, seed)
    if key in trained.load(path).get(label, {}):
        return
    train, test = read(data)
    started, cpu = time.perf_counter(), time.process_time()
    unseen = label == "tune"
    metrics = train_recipe(
        train, None, None if unseen else test, recipe=recipe, settings=dict(settings), seed=seed
    ).metrics
    run = {
        "validation": {name: metrics["validation"][name] for name in ("recall@20", "ndcg@20")},
        "test": {}
        if unseen
        else {name: metrics["test"][name] for name in ("recall@20", "ndcg@20")},
        "epochs": [one["epoch"] for one in metrics["rounds"]],
        "batch_size": metrics["settings"]["batch_size"],
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - cpu, 1),
        "threads": torch.get_num_threads(),
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
    }
    trained.store(path, label, key, run)
    print(f"{label} {key}: {json.dumps(run)}", flush=True)


def _key(data: str, recipe: str, settings: Mapping[str, Any], seed: int) -> str:
    return json.dumps([data, recipe, dict(settings), seed], sort_keys=True)


@functools.cache
def read(data: str) -> tuple[Interactions, Interactions]:
    """Train and test of a set, in the same codes.

    Raises:
        FastnegError: the data are not there.
    """
    if data != "gowalla-sparse":
        return trained.read(data)
    folder = data_folder()
    if folder is None:
        raise FastnegError("no data: set FASTNEG_DATA to the folder of gowalla")
    parts = (
        scipy.sparse.load_npz(folder / "gowalla" / f"{part}.npz").tocsr()
        for part in ("train", "test")
    )
    train, test = thinned(*parts)
    return Interactions.from_csr(train), Interactions.from_csr(test)


def thinned(
    train: Any, test: Any, num_users: int = SPARSE_USERS, num_items: int = SPARSE_ITEMS
) -> tuple[Any, Any]:
    """Users by lot, the most popular items, and 5 to 10 of each user's training rows."""
    rng = np.random.default_rng(0)
    counts = np.asarray((train > 0).sum(0)).ravel()
    popular = np.sort(np.argsort(-counts, kind="stable")[:num_items])
    train, test = train[:, popular], test[:, popular]
    enough = np.flatnonzero(np.diff(train.indptr) >= ROWS[0])
    users = np.sort(rng.choice(enough, num_users, replace=False))
    train, test = train[users], test[users]
    kept = np.zeros(train.nnz, np.bool_)
    for first, last in zip(train.indptr[:-1], train.indptr[1:], strict=True):
        count = last - first
        kept[first + rng.permutation(count)[: rng.integers(ROWS[0], ROWS[1] + 1)]] = True
    rows = train.tocoo()
    pairs = (np.ones(kept.sum()), (rows.row[kept], rows.col[kept]))
    return scipy.sparse.csr_matrix(pairs, shape=train.shape), test


# The page ----------------------------------------------------------------------------------------

_HEAD = """\
# Defaults

Made by `python -m bench.defaults --report`. {sentence}

Every recipe of README's list with its own settings, by default, before the change (commit 225de2c)
and now. The epoch is chosen on a tenth of each user's training items held out at random; figures
are of that model, which has not seen the validation items. Nothing is chosen on test. Means over
the seeds of the row; the change is that of test NDCG@20, seed by seed, with the standard error of
its mean; epochs, batch and seconds are those of the first seed, on one core of a machine that did
other things meanwhile. gowalla-sparse is gowalla thinned: {users:,} users by lot with
{low} to {high} rows each, the {items:,} most popular items.
"""

_TUNED = """\
## Beside ten tuning runs

gowalla-sparse, seed 0: ten points of each recipe (all listed below), the best of them by validation
NDCG@20, and the recipe as shipped. Only the best point meets the test set.
"""


def markdown(stored: trained.Stored, facts: Mapping[str, str]) -> str:
    """DEFAULTS.md of what is stored."""
    rows, worse = [], []
    for data in SETS:
        for recipe in RECIPES:
            runs = {label: _runs(stored, label, data, recipe) for label in (BEFORE, NOW)}
            if not all(runs.values()):
                continue
            common = sorted(set(runs[BEFORE]) & set(runs[NOW]))
            pairs = [(runs[BEFORE][seed], runs[NOW][seed]) for seed in common]
            change, shown = _change(pairs)
            if change < 0:
                worse.append(f"{recipe} on {data} ({shown})")
            rows.append(_row(data, recipe, pairs, shown))
    reached = _reached(stored)
    sentence = (
        "Recipes of which test NDCG@20 is lower than before: " + ", ".join(worse) + "."
        if worse
        else "No recipe has a lower test NDCG@20 than before."
    )
    if reached:
        lowest = min(one.validation for one in reached)
        sentence += (
            f" On the thinned set {', '.join(one.recipe for one in reached)} as shipped reach at "
            f"least {100 * lowest:.0f} % of what ten tuning runs on validation reach."
        )
    head = _HEAD.format(
        sentence=sentence, users=SPARSE_USERS,
        items=SPARSE_ITEMS, low=ROWS[0], high=ROWS[1],
    )  # fmt: skip
    headings = (
        "| set | recipe | seeds | validation NDCG@20 | test Recall@20 | test NDCG@20 | change | "
        "epochs | batch | processor seconds |\n|---|---|---|---|---|---|---:|---|---|---|"
    )
    table = [headings, *rows]
    parts = [head.rstrip(), "\n".join(table)]
    missing = {
        data: [
            recipe
            for recipe in RECIPES
            if not all(_runs(stored, label, data, recipe) for label in (BEFORE, NOW))
        ]
        for data in SETS
    }
    if any(missing.values()):
        lists = (f"{data}: {', '.join(names)}" for data, names in missing.items() if names)
        parts.append(f"Not measured: {'; '.join(lists)}.")
    if reached:
        headings = (
            "| recipe | best point | validation NDCG@20 | as shipped | share | test NDCG@20 "
            "| as shipped | share |\n|---|---|---|---|---|---|---|---|"
        )
        parts += [_TUNED.rstrip(), "\n".join([headings, *(one.row() for one in reached)])]
        parts += [_tried(stored, one.recipe) for one in reached]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts) + "\n"


def _runs(stored: trained.Stored, label: str, data: str, recipe: str) -> dict[int, dict[str, Any]]:
    """Runs without other settings, by seed."""
    found = {}
    for key, run in stored.get(label, {}).items():
        its_data, its_recipe, settings, seed = json.loads(key)
        if (its_data, its_recipe, settings) == (data, recipe, {}):
            found[seed] = run
    return found


def _mean(pairs: Sequence[Any], side: int, part: str, name: str) -> float:
    return float(np.mean([pair[side][part][name] for pair in pairs]))


def _change(pairs: Sequence[Any]) -> tuple[float, str]:
    """Change of test NDCG@20 in per cent, and in words with its standard error over the seeds."""
    before, now = np.array([[side["test"]["ndcg@20"] for side in pair] for pair in pairs]).T
    changes = 100.0 * (now / before - 1.0)
    mean, count = float(np.mean(changes)), len(changes)
    error = f" ± {np.std(changes, ddof=1) / count**0.5:.1f}" if count > 1 else ""
    return mean, f"{mean:+.1f}{error} %"


def _row(data: str, recipe: str, pairs: Sequence[Any], change: str) -> str:
    def both(part: str, name: str) -> str:
        return " → ".join(f"{_mean(pairs, side, part, name):.4f}" for side in (0, 1))

    def each(name: str) -> str:
        return " → ".join(str(pairs[0][side][name]).strip("[]") for side in (0, 1))

    cells = [
        data, recipe, str(len(pairs)), both("validation", "ndcg@20"), both("test", "recall@20"),
        both("test", "ndcg@20"), change, each("epochs"), each("batch_size"),
        each("processor_seconds"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _tuned(stored: trained.Stored, recipe: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(settings, run) of each point that is stored, in the order of the list."""
    runs = stored.get("tune", {})
    keys = [(dict(one), _key("gowalla-sparse", recipe, one, 0)) for one in TRIALS[recipe]]
    return [(settings, runs[key]) for settings, key in keys if key in runs]


def chosen(stored: trained.Stored, recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, run) of the point with the best validation NDCG@20."""
    return max(_tuned(stored, recipe), key=lambda pair: float(pair[1]["validation"]["ndcg@20"]))


class _Share(NamedTuple):
    """How far a recipe as shipped comes, beside the best of its ten points."""

    recipe: str
    settings: dict[str, Any]
    best: dict[str, Any]
    own: dict[str, Any]
    met: dict[str, Any] | None

    @property
    def validation(self) -> float:
        return float(self.own["validation"]["ndcg@20"] / self.best["validation"]["ndcg@20"])

    def row(self) -> str:
        """Of the page's table."""
        values = [self.best["validation"]["ndcg@20"], self.own["validation"]["ndcg@20"]]
        cells = [self.recipe, _words(self.settings), *(f"{value:.4f}" for value in values)]
        cells.append(f"{100 * self.validation:.0f} %")
        if self.met is None:
            return "| " + " | ".join([*cells, "", "", ""]) + " |"
        tests = [run["test"]["ndcg@20"] for run in (self.met, self.own)]
        cells += [*(f"{value:.4f}" for value in tests), f"{100 * tests[1] / tests[0]:.0f} %"]
        return "| " + " | ".join(cells) + " |"


def _reached(stored: trained.Stored) -> list[_Share]:
    """Of every recipe all of whose points are stored, and itself."""
    found = []
    for recipe, trials in TRIALS.items():
        own = _runs(stored, NOW, "gowalla-sparse", recipe).get(0)
        if len(_tuned(stored, recipe)) < len(trials) or own is None:
            continue
        settings, best = chosen(stored, recipe)
        met = stored.get("best", {}).get(_key("gowalla-sparse", recipe, settings, 0))
        found.append(_Share(recipe, settings, best, own, met))
    return found


def _tried(stored: trained.Stored, recipe: str) -> str:
    lines = [f"{recipe}:"]
    for settings, run in _tuned(stored, recipe):
        epochs = ", ".join(map(str, run["epochs"]))
        score = run["validation"]["ndcg@20"]
        lines.append(f"- {_words(settings)}: validation NDCG@20 {score:.4f} after {epochs} epochs")
    return "\n".join(lines)


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    sys.exit(main())
