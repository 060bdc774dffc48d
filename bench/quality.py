"""Quality beside the published figures: settings and epoch chosen on validation, then the test set.

python -m bench.quality                            # every line: the grid, then three seeds
python -m bench.quality --only gowalla             # lines whose names begin with gowalla
python -m bench.quality --only ml-1m-bsl --tune    # the grid alone
python -m bench.quality --report                   # write QUALITY.md from what is stored

Every run is stored in quality.json as soon as it has ended, and a run that stands there is not
made again: what was interrupted goes on. The test set is seen by the last step alone, with the
settings that validation chose, trained again on train and validation for the epochs it chose.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.quality_lines import LINES, Line
from bench.worlds import data_folder
from fastneg import Interactions
from fastneg.recipes import train_recipe

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)
_CHOSEN_BY = "ndcg@20"

Stored = dict[str, dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 where there are no data."""
    options = _parse(arguments)
    folder = Path(options.out)
    chosen = [line for line in LINES if line.name.startswith(options.only)]
    if not chosen:
        sys.exit(f"no line {options.only}; there are {', '.join(line.name for line in LINES)}")
    stored = load(folder)
    if not options.report:
        data = data_folder()
        if data is None:
            print("no data: set FASTNEG_DATA to the folder of gowalla, ...", file=sys.stderr)
            return 1
        for line in chosen:
            measure(line, data, folder, stored, tune_only=options.tune)
    write(folder, stored)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--only", default="", help="lines whose names begin so")
    parser.add_argument("--tune", action="store_true", help="the grid alone; the test set unseen")
    parser.add_argument("--report", action="store_true", help="write QUALITY.md, train nothing")
    parser.add_argument("--out", default=str(HERE), help="folder of QUALITY.md and quality.json")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser.parse_args(arguments)


def measure(
    line: Line, data: Path, folder: Path, stored: Stored, *, tune_only: bool = False
) -> None:
    """Make the runs of a line that are not stored yet."""
    train, test = read(data / line.data)
    runs = stored.setdefault(line.name, {})
    for settings in trials(line):
        key = run_key("tune", line, settings, 0)
        if key not in runs:
            _say(f"{line.name}: {_shown(line, settings)}")
            runs[key] = _run(train, None, line, settings, seed=0)
            _say(f"{line.name}: validation {_CHOSEN_BY} {runs[key]['validation'][_CHOSEN_BY]:.4f}")
            save(folder, stored)
    if tune_only:
        return
    best, _ = choose(line, runs)
    for seed in SEEDS:
        key = run_key("test", line, best, seed)
        if key not in runs:
            _say(f"{line.name}: seed {seed}, {_shown(line, best)}")
            runs[key] = _run(train, test, line, best, seed=seed)
            save(folder, stored)


def read(folder: Path) -> tuple[Interactions, Interactions]:
    """Train and test of a data set, in the same codes."""
    import scipy.sparse

    parts = [scipy.sparse.load_npz(folder / f"{part}.npz").tocsr() for part in ("train", "test")]
    return Interactions.from_csr(parts[0]), Interactions.from_csr(parts[1])


def trials(line: Line) -> Iterator[dict[str, Any]]:
    """The settings to try: every point of the grid on top of the line's own."""
    for values in itertools.product(*line.grid.values()):
        yield {**line.settings, **dict(zip(line.grid, values, strict=True))}


def run_key(kind: str, line: Line, settings: dict[str, Any], seed: int) -> str:
    """What a run is stored under: all that it depends on, but for the code."""
    return json.dumps([kind, line.recipe, settings, seed], sort_keys=True)


def choose(line: Line, runs: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The point of the grid with the best validation NDCG@20, and how many were tried."""
    tried = [
        (runs[key]["validation"][_CHOSEN_BY], settings)
        for settings in trials(line)
        if (key := run_key("tune", line, settings, 0)) in runs
    ]
    return max(tried, key=lambda pair: pair[0])[1], len(tried)


def _run(
    train: Interactions,
    test: Interactions | None,
    line: Line,
    settings: dict[str, Any],
    *,
    seed: int,
) -> dict[str, Any]:
    started = time.perf_counter()
    result = train_recipe(
        train, test=test, recipe=line.recipe, settings=settings, seed=seed, refit=test is not None
    )
    found = result.metrics
    return {
        "validation": found["validation"],
        "test": found["test"],
        "epoch": found["epoch"],
        "seconds": round(time.perf_counter() - started, 1),
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
    }


def _shown(line: Line, settings: dict[str, Any]) -> str:
    names = [*line.settings, *(name for name in line.grid if name not in line.settings)]
    return ", ".join(f"{name} {settings[name]}" for name in names)


def _say(text: str) -> None:
    print(f"{dt.datetime.now():%H:%M} {text}", flush=True)


# Files -------------------------------------------------------------------------------------------


def load(folder: Path) -> Stored:
    """Runs by line and key; empty where there is no file."""
    path = folder / "quality.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(folder: Path, stored: Stored) -> None:
    """Write quality.json to a temporary name that is then renamed."""
    _replace(folder / "quality.json", json.dumps(stored, indent=1, sort_keys=True) + "\n")


def write(folder: Path, stored: Stored) -> None:
    """Write QUALITY.md."""
    _replace(folder / "QUALITY.md", markdown(stored, machine.facts()))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


_INTRODUCTION = """\
# Quality

Made by `python -m bench.quality`. Plain two-tower models of id embeddings, d = 64, full ranking
over the catalog with the training positives masked; the splits are those of the published figures.

Settings and the number of epochs were chosen on a tenth of each user's training items, held out at
random, by validation NDCG@20, with seed 0; then, for each of three seeds, the model was trained
once to choose the epoch and once more on train and validation for that many epochs (`--refit`), and
that model met the test set. The published figures chose their epoch on the test set. "Tried" is the
number of settings tried on validation. Seconds are of one seed, both trainings and all evaluations.
"""


def markdown(stored: Stored, facts: dict[str, str]) -> str:
    """QUALITY.md: a table of the lines that have all their seeds, and the settings of each."""
    rows, settings, missing = [], [], []
    for line in LINES:
        runs = stored.get(line.name, {})
        if not any(json.loads(key)[0] == "tune" for key in runs):
            missing.append(line.name)
            continue
        best, tried = choose(line, runs)
        keys = [run_key("test", line, best, seed) for seed in SEEDS]
        if any(key not in runs for key in keys):
            missing.append(line.name)
            continue
        rows.append(_row(line, [runs[key] for key in keys], tried))
        settings.append(f"- {line.name}: recipe `{line.recipe}`, {_shown(line, best)}; "
                        f"grid of {_grid(line)}.")  # fmt: skip
    head = (
        "| line | Recall@20 | NDCG@20 | must reach | aim | reached | published | epochs | "
        "seconds | tried |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    parts = [_INTRODUCTION, "\n".join([head, *rows]), "Settings:", "\n".join(settings)]
    if missing:
        parts.append("Not measured yet: " + ", ".join(missing) + ".")
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts) + "\n"


def _row(line: Line, runs: list[dict[str, Any]], tried: int) -> str:
    found = {
        name: np.array([run["test"][name] for run in runs]) for name in ("recall@20", "ndcg@20")
    }
    means = (float(found["recall@20"].mean()), float(found["ndcg@20"].mean()))
    cells = [
        line.name,
        *(f"{one.mean():.4f} ± {one.std(ddof=1):.4f}" for one in found.values()),
        _pair(line.goal),
        _pair(line.aim),
        _reached(means, line),
        line.published,
        ", ".join(str(run["epoch"]) for run in runs),
        f"{np.median([run['seconds'] for run in runs]):,.0f}",
        str(tried),
    ]
    return "| " + " | ".join(cells) + " |"


def _pair(values: tuple[float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.4g} / {values[1]:.4g}"


def _reached(means: tuple[float, float], line: Line) -> str:
    if line.goal is None:
        return ""
    reached = [all(a >= b for a, b in zip(means, bound, strict=True))
               for bound in (line.goal, line.aim) if bound is not None]  # fmt: skip
    return ("no", "goal", "goal and aim")[sum(reached)]


def _grid(line: Line) -> str:
    sides = " x ".join(f"{name} {', '.join(map(str, v))}" for name, v in line.grid.items())
    return sides or "one point"


if __name__ == "__main__":
    sys.exit(main())
