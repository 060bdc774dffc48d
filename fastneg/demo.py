"""The main job on real interactions: what each kind of negative is worth, in one table.

Trains the same two towers with different negatives and losses, several seeds each, and compares
them with ranking by popularity on interactions that none of them saw.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastneg.checks import as_choice, as_integer
from fastneg.errors import FastnegError

if TYPE_CHECKING:
    from rich.console import Console

    from fastneg.data.datasets import Dataset
    from fastneg.interactions import Interactions

DATASETS = ("movielens", "tafeng", "generated")
_COLUMNS = ("recall@20", "ndcg@20", "coverage@20", "recall_rarest_half@20", "seconds")
_K = 20
_RESULTS = ("results.json", "table.md")


@dataclass(frozen=True)
class Entry:
    """One row of the demo's table: a recipe, and the settings in which it departs from it."""

    label: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the folder of its runs: its label, of which no other row has the same."""
        return "-".join(re.findall(r"[a-z0-9]+", self.label.lower()))


# Chosen on validation by bench/tune_demo.py: grids of 24 and 7 runs, and 13 that led to them.
_RUNS_TRIED = 44
_COMMON: dict[str, Any] = {"dim": 64, "batch_size": 512, "epochs": 20, "patience": 2}
_SOFTMAX: dict[str, Any] = {**_COMMON, "learning_rate": 1e-2, "temperature": 0.2}
_MIXED: dict[str, Any] = {**_SOFTMAX, "temperature": 0.15, "num_uniform": 256}
_MINED: dict[str, Any] = {
    **_MIXED,
    "rounds": 2,
    "easy_to_hard": 30.0,
    "warm_start": False,
    "keep_round": "last",
}
ENTRIES = (
    Entry("BPR", "bpr", {**_COMMON, "learning_rate": 1e-2, "l2": 1e-2}),
    Entry("in-batch", "in-batch", {**_SOFTMAX, "temperature": 0.3}),
    Entry("in-batch + logQ", "in-batch-logq", _SOFTMAX),
    Entry("mixed", "mixed-negative-sampling", _MIXED),
    Entry("mixed + mined", "mixed-negative-sampling", _MINED),
)


_LARGE = 300_000  # training positives from which a run takes larger batches and fewer epochs


def settings_for(entry: Entry, train: Interactions) -> dict[str, Any]:
    """The entry's settings, with batches of 2,048 and at most 6 epochs where data are plenty."""
    settings = dict(entry.settings)
    if train.num_positives >= _LARGE:
        settings.update(batch_size=2048, epochs=6, patience=1)
        if "num_uniform" in settings:
            settings["num_uniform"] = 2048
    return settings


def run_demo(
    *,
    out: Path | None = None,
    dataset: str = "movielens",
    data: Path | None = None,
    seeds: int = 3,
    columns: Mapping[str, str | None] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Compare kinds of negatives on real interactions.

    Args:
        out: a folder for ``results.json``, ``table.md`` and each run's model; None writes nothing.
        dataset: "movielens" (MovieLens-100K), "tafeng" (Ta Feng purchases) or "generated".
        data: a file of the user's own instead, as ``Interactions.read`` takes it.
        seeds: how often each kind is trained; the table gives mean and standard deviation.
        columns: names of the columns in ``data`` (arguments of ``Interactions.read``).
        console: where the table goes; standard output by default.

    Returns:
        What ``results.json`` holds: data set, split, settings and every run's metrics.

    Raises:
        FastnegError: bad arguments, a file that cannot be read, a folder that cannot be written.
    """
    from rich.console import Console

    dataset = as_choice(dataset, DATASETS, call="demo", name="dataset")
    seeds = as_integer(seeds, call="demo", name="seeds", minimum=1)
    console = console or Console()
    if out is not None:
        _refuse_results(Path(out))
    chosen = load(dataset, data, columns, console)
    train, test, split = split_for(chosen)
    cold = int(((test.user_positive_counts > 0) & (train.user_positive_counts == 0)).sum())
    console.print(
        f"[bold]{chosen.name}[/bold]: {train.num_users:,} users, {train.num_items:,} items, "
        f"{train.num_positives:,} train and {test.num_positives:,} test positives ({split}), "
        f"{cold:,} test users without training interactions"
    )
    started = time.perf_counter()
    rows = [_most_popular(train, test)]
    rows += [_train_entry(entry, train, test, seeds, out, console) for entry in ENTRIES]
    results = {
        "dataset": chosen.name,
        "split": split,
        "users": train.num_users,
        "items": train.num_items,
        "train_positives": train.num_positives,
        "test_positives": test.num_positives,
        "cold_test_users": cold,
        "seeds": seeds,
        "rows": rows,
        "seconds": time.perf_counter() - started,
    }
    _show(results, console)
    if out is not None:
        _write(Path(out), results)
        console.print(f"written to {out}: results.json, table.md, and a folder for each run")
    return results


def _refuse_results(out: Path) -> None:
    """Raise where the folder holds a demo's results, or cannot be written, before any work."""
    from fastneg.training.outputs import prepare_folder

    there = [name for name in (*_RESULTS, *(e.folder for e in ENTRIES)) if (out / name).exists()]
    if there:
        raise FastnegError(
            f"demo: {out} holds {', '.join(there)}; remove the folder, or give another one"
        )
    prepare_folder(out)


def load(
    dataset: str, data: Path | None, columns: Mapping[str, str | None] | None, console: Console
) -> Dataset:
    """The data set asked for; a generated one, announced, where no registry answers."""
    from fastneg.data.datasets import Dataset
    from fastneg.data.movielens import load_movielens_100k
    from fastneg.data.synthetic import generate_dataset
    from fastneg.data.tafeng import load_tafeng
    from fastneg.interactions import Interactions

    if data is not None:
        given: dict[str, Any] = {
            name: value for name, value in (columns or {}).items() if value is not None
        }
        return Dataset(Path(data).name, Interactions.read(data, **given))
    if dataset == "generated":
        return generate_dataset(943, 1682, seed=0)
    try:
        return load_movielens_100k() if dataset == "movielens" else load_tafeng()
    except FastnegError as error:
        console.print(
            f"[yellow]{error}[/yellow]\n[yellow]Going on with a generated data set, whose ground "
            "truth is known.[/yellow]"
        )
        return generate_dataset(943, 1682, seed=0)


def split_for(chosen: Dataset) -> tuple[Interactions, Interactions, str]:
    """(train, test, how): by global time for dated purchases, else each user's last fifth."""
    from fastneg.data.splits import split_by_time, split_last_fraction

    known = chosen.interactions
    if chosen.name == "tafeng":
        parts = split_by_time(known, test_fraction=0.1, validation_fraction=0.0)
        how = "the last tenth of the time"
    else:
        parts = split_last_fraction(known, fraction=0.2, seed=0)
        how = "each user's last 20 %" + ("" if known.row_times is not None else ", by seed")
    if parts.test is None or parts.test.num_positives == 0:
        raise FastnegError(f"{chosen.name}: too few interactions for a test split")
    return parts.train, parts.test, how


def _most_popular(train: Interactions, test: Interactions) -> dict[str, Any]:
    from fastneg.training.evaluation import evaluate_scores, most_popular_scores

    started = time.perf_counter()
    result = evaluate_scores(most_popular_scores(train), train=train, test=test, k=(_K,))
    metrics = {**result.metrics, "seconds": time.perf_counter() - started}
    return {"label": "MostPop", "runs": [metrics], "summary": _summary([metrics])}


def _train_entry(
    entry: Entry,
    train: Interactions,
    test: Interactions,
    seeds: int,
    out: Path | None,
    console: Console,
) -> dict[str, Any]:
    from fastneg.recipes import train_recipe

    runs, epochs = [], []
    settings = settings_for(entry, train)
    for seed in range(seeds):
        folder = None if out is None else Path(out) / entry.folder / f"seed-{seed}"
        with console.status(f"{entry.label}, seed {seed}"):
            result = train_recipe(
                train,
                None,
                test,
                recipe=entry.recipe,
                settings=settings,
                seed=seed,
                out=folder,
            )
        metrics = result.metrics
        runs.append({**metrics["test"], "seconds": metrics["seconds"]})
        epochs.append(metrics["epoch"])
    return {
        "label": entry.label,
        "recipe": entry.recipe,
        "settings": settings,
        "epochs": epochs,
        "runs": runs,
        "summary": _summary(runs),
    }


def _summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    table = {
        name: np.array([run.get(name, np.nan) for run in runs], dtype=np.float64)
        for name in _COLUMNS
    }
    return {
        name: {
            "mean": float(values.mean()),
            "deviation": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        }
        for name, values in table.items()
    }


def _cells(row: dict[str, Any]) -> list[str]:
    summary = row["summary"]

    def spread(name: str) -> str:
        mean, deviation = summary[name]["mean"], summary[name]["deviation"]
        return f"{mean:.4f}" if len(row["runs"]) == 1 else f"{mean:.4f} ± {deviation:.4f}"

    return [
        row["label"],
        spread("recall@20"),
        spread("ndcg@20"),
        f"{summary['coverage@20']['mean']:.3f}",
        f"{summary['recall_rarest_half@20']['mean']:.4f}",
        f"{summary['seconds']['mean']:.1f}",
    ]


_HEADINGS = ("negatives", "Recall@20", "NDCG@20", "coverage", "rarest", "seconds")


def _show(results: dict[str, Any], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{results['dataset']}, {results['split']}; seeds: {results['seeds']}",
        caption="Epochs are chosen on a held-out tenth of the training data, the settings likewise "
        f"({_RUNS_TRIED} runs tried on MovieLens-100K, bench/tune_demo.py). Rarest: recall over "
        "the rarer half of the items. Seconds: one run.",
    )
    for i, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in results["rows"]:
        table.add_row(*_cells(row))
    console.print(table)
    console.print(f"{results['seconds']:.0f} seconds in all")


def _write(out: Path, results: dict[str, Any]) -> None:
    from fastneg.training.checkpoints import write_json, write_text

    write_json(out / "results.json", results)
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|---|" + "---:|" * (len(_HEADINGS) - 1)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in results["rows"]]
    write_text(out / "table.md", "\n".join(lines) + "\n")


__all__ = ["DATASETS", "ENTRIES", "Entry", "load", "run_demo", "split_for"]
