"""Quality beside the published figures: settings and epoch chosen on validation, then the test set.

python -m bench.quality                            # every line: the grid, then three seeds
python -m bench.quality --only gowalla             # lines whose names begin with gowalla
python -m bench.quality --only ml-1m --tune        # the grid alone; the test set unseen
python -m bench.quality --report                   # write QUALITY.md from what is stored

Runs are stored in quality.json as they end (``bench.trained``).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, split_check, trained
from bench.quality_lines import LINES, Published
from bench.trained import Stored

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--only", default="", help="lines whose names begin so")
    parser.add_argument("--tune", action="store_true", help="the grid alone; the test set unseen")
    parser.add_argument("--report", action="store_true", help="write QUALITY.md, train nothing")
    parser.add_argument("--out", default=str(HERE), help="folder of QUALITY.md and quality.json")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(arguments)
    chosen = [line for line in LINES if line.name.startswith(options.only)]
    if not chosen:
        sys.exit(f"no line {options.only}; there are {', '.join(line.name for line in LINES)}")
    folder = Path(options.out)
    path = folder / "quality.json"
    if not options.report:
        for line in chosen:
            trained.measure(line, path, tune_only=options.tune)
    splits = "" if options.tune else split_check.table()
    text = markdown(trained.load(path), machine.facts(), splits)
    trained.replace(folder / "QUALITY.md", text)
    return 0


_INTRODUCTION = """\
# Quality

Made by `python -m bench.quality`. Plain two-tower models of id embeddings, d = 64, full ranking
over the catalog with the training positives masked; the splits are those of the published figures.

Settings and the number of epochs were chosen on a tenth of each user's training items, held out at
random, by validation NDCG@20, with seed 0; then, for each of three seeds, a model was trained from
the start on train and validation together for that many epochs (what `--refit` does), and that
model met the test set, once. A line that was tuned further met it again with its new choice; what
earlier choices reached stands below. The published figures chose their epoch on the test set.
"Tried" is the number of whole runs on validation, the chosen one among them; each is listed below
(those given up before their end are not). Temperature and weight of the points with a
negative_weight are what BSL's authors published, who had chosen them on the test set. Seconds are
of one such training, at the number of threads said, on the machine that made it, which need not be
the one below. A bpr line has the pairwise logistic loss, whatever its negatives.
"""


_SPLITS = """\
The published splits, by `python -m bench.split_check`. Over the items, z (how many more of an
item's pairs are in test than a random split would put there, in standard deviations) has a standard
deviation of 1 where the split is random. Where it is far from 1, pairs of train held out at random
do not resemble the test set, and settings that validation prefers need not be best there.
"""


def markdown(stored: Stored, facts: dict[str, str], splits: str = "") -> str:
    """QUALITY.md: a table of the lines that have all their seeds, and all that was tried."""
    rows, tried, missing = [], [], []
    for line in LINES:
        runs = stored.get(line.name, {})
        done = trained.finished(line, runs)
        if not done:
            missing.append(line.name)
            continue
        rows.append(_row(line, done, trained.choose(line, runs)[1], _base(line, stored)))
        tried.append(_tried(line, runs))
    head = (
        "| line | Recall@20 | NDCG@20 | must reach | aim | reached | published | epochs | "
        "seconds | threads | tried |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    parts = [_INTRODUCTION.rstrip()]
    if rows:
        parts += ["\n".join([head, *rows]), "What was tried on validation:", *tried]
    if missing:
        parts.append("Not measured yet: " + ", ".join(missing) + ".")
    if splits:
        parts += [_SPLITS.rstrip(), splits]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts) + "\n"


def _tried(line: Published, runs: trained.Runs) -> str:
    best, _ = trained.choose(line, runs)
    lines = [f"{line.name}, recipe `{line.recipe}`:"]
    for settings in trained.trials(line):
        run = runs[trained.run_key("tune", line, settings, 0)]
        epochs = ", ".join(map(str, run["epochs"]))
        lines.append(
            f"- {trained.shown(line, settings)}: NDCG@20 {run['validation']['ndcg@20']:.4f} after "
            f"{epochs} epochs" + (" (chosen)" if settings == best else "")
        )
    known = {trained.run_key("tune", line, one, 0) for one in trained.trials(line)}
    for key, run in runs.items():  # tried once, and no point of the grid any more
        kind, _, settings, _ = json.loads(key)
        if kind == "tune" and key not in known:
            text = ", ".join(f"{name} {value}" for name, value in settings.items())
            lines.append(f"- {text}: NDCG@20 {run['validation']['ndcg@20']:.4f}")
    lines += _earlier(line, runs)
    return "\n".join(lines)


def _earlier(line: Published, runs: trained.Runs) -> list[str]:
    """What earlier choices of a line reached on the test set."""
    met: dict[str, list[dict[str, Any]]] = {}
    for key, run in runs.items():
        kind, _, settings, _ = json.loads(key)
        if kind == "test" and settings != trained.final(line, runs):
            met.setdefault(trained.shown(line, settings), []).append(run)
    return [
        f"- chosen before, and on the test set then: {text}: "
        + " / ".join(
            f"{np.mean([run['test'][name] for run in found]):.4f}"
            for name in ("recall@20", "ndcg@20")
        )
        + f" ({len(found)} seed{'s' * (len(found) > 1)})"
        for text, found in met.items()
    ]


def _base(line: Published, stored: Stored) -> float | None:
    """NDCG@20 of the line that this one is to exceed; None: there is none, or it has no seeds."""
    other = next((one for one in LINES if one.name == line.over), None)
    done = trained.finished(other, stored.get(other.name, {})) if other else []
    return trained.means(done, "ndcg@20")[0] if done else None


def _row(line: Published, runs: list[dict[str, Any]], tried: int, base: float | None) -> str:
    found = [trained.means(runs, name) for name in ("recall@20", "ndcg@20")]
    cells = [
        line.name,
        *(f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in found),
        *_bounds(line),
        _reached([mean for mean, _ in found], line, base),
        line.published,
        ", ".join(map(str, runs[0]["epochs"])),
        f"{np.median([run['seconds'] for run in runs]):,.0f}",
        ", ".join(sorted({str(run["threads"]) for run in runs})),
        str(tried),
    ]
    return "| " + " | ".join(cells) + " |"


def _bounds(line: Published) -> tuple[str, str]:
    """What is to be reached, and aimed at, in words."""
    if line.over:
        goal, aim = (f"{100 * gain:+.3g} % NDCG@20" for gain in line.gains)
        return f"{goal} over {line.over}", aim
    return _pair(line.goal), _pair(line.aim)


def _pair(values: tuple[float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.4g} / {values[1]:.4g}"


def _reached(found: list[float], line: Published, base: float | None) -> str:
    words = ("no", "goal", "goal and aim")
    if base is not None:
        gain = found[1] / base - 1.0
        return f"{words[sum(gain >= one for one in line.gains)]} ({100 * gain:+.1f} %)"
    if line.goal is None:
        return ""
    bounds = [bound for bound in (line.goal, line.aim) if bound is not None]
    return words[sum(all(a >= b for a, b in zip(found, bound, strict=True)) for bound in bounds)]


if __name__ == "__main__":
    sys.exit(main())
