"""How the demo's settings were chosen: a grid on validation, one seed, test unseen.

python -m bench.tune_demo            # prints every run, then the best of each row
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from fastneg.demo import ENTRIES, Entry, load, split_for
from fastneg.recipes import train_recipe

GRIDS: dict[str, dict[str, list[Any]]] = {
    "BPR": {"learning_rate": [5e-3, 1e-2], "l2": [1e-2, 2e-2], "average_decay": [0.0, 0.8]},
    "in-batch": {"learning_rate": [1e-2], "temperature": [0.15, 0.2, 0.3]},
    "in-batch + logQ": {"learning_rate": [5e-3, 1e-2], "temperature": [0.15, 0.2, 0.3]},
    "mixed": {"learning_rate": [1e-2], "temperature": [0.15, 0.2, 0.3]},
    "mixed + mined": {"easy_to_hard": [10.0, 30.0, 100.0], "warm_start": [True, False]},
}


def trials(entry: Entry) -> Iterator[dict[str, Any]]:
    """The settings to try for one entry of the demo."""
    grid = GRIDS[entry.label]
    for values in itertools.product(*grid.values()):
        yield {**entry.settings, **dict(zip(grid, values, strict=True))}


def main(only: list[str]) -> None:
    """Run the grids (of the rows named, or all) and print them."""
    console = Console()
    train, _, _ = split_for(load("movielens", None, None, console))
    for entry in ENTRIES:
        if only and entry.label not in only:
            continue
        scores: list[tuple[float, dict[str, Any]]] = []
        for settings in trials(entry):
            started = time.perf_counter()
            result = train_recipe(train, recipe=entry.recipe, settings=settings, seed=0)
            changed = {name: settings[name] for name in GRIDS[entry.label]}
            score = result.metrics["validation"]["ndcg@20"]
            scores.append((score, changed))
            console.print(
                f"{entry.label} {changed}: validation NDCG@20 {score:.4f}, epoch "
                f"{result.metrics['epoch']}, {time.perf_counter() - started:.1f} s"
            )
        best = max(scores, key=lambda pair: pair[0])
        console.print(f"[bold]{entry.label}: best of {len(scores)} runs {best}[/bold]")


if __name__ == "__main__":
    main(sys.argv[1:])
