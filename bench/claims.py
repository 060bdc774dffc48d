"""The literature's claims about negatives, each an experiment with a verdict: docs/claims.md.

python -m bench.claims                             # every experiment
python -m bench.claims --only logq-movielens       # those whose names begin so
python -m bench.claims --report                    # write claims.md from what is stored

`fastneg recipes show` tells what the comparison of all recipes found; unless --stored or --out say
another folder, it is written to fastneg/training/recipe_results.toml.

Settings are chosen on validation, arm by arm, with the same number of runs for the arms that have a
grid; three seeds then meet the test set. Runs are stored in claims.json as they end
(``bench.trained``). Pictures are drawn where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

from bench import machine, trained
from bench.claims_list import CLAIMS, Claim, Verdict
from bench.trained import Stored
from fastneg.training.config import to_toml

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RECIPES = HERE.parent / "fastneg" / "training" / "recipe_results.toml"

Found = dict[str, list[dict[str, Any]]]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims", description=__doc__)
    parser.add_argument("--only", default="", help="the experiment, or those whose names begin so")
    parser.add_argument("--report", action="store_true", help="write claims.md, train nothing")
    parser.add_argument("--stored", default=str(HERE), help="folder of claims.json")
    parser.add_argument("--out", default=str(DOCS), help="folder of claims.md and its pictures")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(arguments)
    chosen = [claim for claim in CLAIMS if claim.name == options.only]
    chosen = chosen or [claim for claim in CLAIMS if claim.name.startswith(options.only)]
    if not chosen:
        sys.exit(f"no experiment {options.only}; there are {', '.join(c.name for c in CLAIMS)}")
    path = Path(options.stored) / "claims.json"
    if not options.report:
        for claim in chosen:
            for line in claim.arms.values():
                trained.measure(line, path)
    stored = trained.load(path)
    write(Path(options.out), stored, machine.facts())
    if options.out == str(DOCS) and options.stored == str(HERE):
        write_recipe_results(RECIPES, stored)
    return 0


def write_recipe_results(path: Path, stored: Stored) -> None:
    """Write what the recipes were worth, a table for each data set, where all of it is known."""
    tables = {}
    for claim in CLAIMS:
        kind, _, data = claim.name.partition("-")
        found = whole(claim, stored) if kind == "recipes" else None
        if found is not None:
            tables[data] = recipe_results(claim, found)
    trained.replace(path, _RECIPES_HEAD + (to_toml(tables) if tables else ""))


_RECIPES_HEAD = """\
# What the recipes were worth on test sets, three seeds each: written by `python -m bench.claims`,
# whose page says when a difference counts as one.

"""


def write(folder: Path, stored: Stored, facts: dict[str, str]) -> None:
    """Write claims.md and a picture for each experiment that is whole."""
    drawing = importlib.util.find_spec("matplotlib") is not None
    parts, missing = [_INTRODUCTION.rstrip()], []
    for claim in CLAIMS:
        found = whole(claim, stored)
        if found is None:
            missing.append(claim.name)
            continue
        picture = folder / f"claims-{claim.name}.png"
        if drawing:
            from bench.claims_plot import draw

            picture.parent.mkdir(parents=True, exist_ok=True)
            draw(claim, found, picture)
        parts.append(section(claim, stored, found, picture.name if picture.exists() else None))
    if missing:
        parts.append("Not measured yet: " + ", ".join(missing) + ".")
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    trained.replace(folder / "claims.md", "\n\n".join(parts) + "\n")


def whole(claim: Claim, stored: Stored) -> Found | None:
    """The runs of each arm that met the test set; None while any is missing."""
    found = {
        label: trained.finished(line, stored.get(line.name, {}))
        for label, line in claim.arms.items()
    }
    return found if all(found.values()) else None


_INTRODUCTION = """\
# What the literature says of negatives, tried

Made by `python -m bench.claims`; one experiment by `python -m bench.claims --only NAME`. Every arm
chooses its settings and its number of epochs on validation (seed 0; the number of settings tried
stands beside it); then, for each of three seeds, a model is trained on train and validation
together for that many epochs and meets the test set. Means and standard deviations over the seeds.

A verdict looks at the difference of two means: "holds here" or "the opposite here" where it is
more than twice its standard error (of the three seeds) and more than 1 %, else "no difference seen
here". The seeds tell how far chance in training goes; other data are another matter.

Runs made before December 2026 (claims.json has the day of each) started ids at 1 / sqrt(dim), did
not average the weights of pairwise losses (l2 0.01), and counted evaluations since the best one as
patience.
"""


def section(claim: Claim, stored: Stored, found: Found, picture: str | None) -> str:
    """One experiment: what was done, the table, the verdicts, the settings."""
    head = ["arm", *(_words(name) for name in claim.metrics), "epochs", "tried"]
    lines = [_cells(head), _cells(["---"] * len(head))]
    settings = []
    for label, line in claim.arms.items():
        best, tried = trained.choose(line, stored[line.name])
        values = [trained.means(found[label], name) for name in claim.metrics]
        lines.append(_cells([
            label,
            *("" if math.isnan(mean) else f"{mean:.4f} ± {deviation:.4f}"
              for mean, deviation in values),
            ", ".join(map(str, found[label][0]["epochs"])),
            str(tried),
        ]))  # fmt: skip
        settings.append(f"- {label}: recipe `{line.recipe}`, {trained.shown(line, best)}.")
    verdicts = [f"- {one.statement}: **{judge(one, found)}**" for one in claim.verdicts]
    parts = [f"## {claim.title}", f"`python -m bench.claims --only {claim.name}`. {claim.source}."]
    parts += [claim.text, "\n".join(lines), "\n".join(verdicts)]
    parts += [
        _windows_text(label, _chosen_run(line, stored[line.name])["windows"])
        for label, line in claim.arms.items()
        if line.windows
    ]
    if picture is not None:
        parts.append(f"![{claim.title}]({picture})")
    return "\n\n".join([*parts, "\n".join(settings)])


def _chosen_run(line: trained.Line, runs: trained.Runs) -> dict[str, Any]:
    """The run on validation that chose the settings."""
    return runs[trained.run_key("tune", line, trained.choose(line, runs)[0], 0)]


def _windows_text(label: str, windows: list[dict[str, Any]]) -> str:
    """Where held-out positives fall, one line a window."""
    lines = [f"What `diagnose_window` says before anything is mined, by the model of {label}:", ""]
    for one in windows:
        first, last = one["window"]
        suggested = "none" if one["suggested"] is None else "ranks {}-{}".format(*one["suggested"])
        lines.append(
            f"- ranks {first}-{last}: {one['verdict']}; {one['share']:.1%} of validation's "
            f"positives lie there, {one['lift']:.1f} times as dense as in the catalog; suggested "
            f"of that width: {suggested}."
        )
    return "\n".join(lines)


def recipe_results(claim: Claim, found: Found) -> dict[str, str]:
    """What each arm of a comparison with one of them was worth, in words."""
    words = {1: "better than", 0: "no difference seen from", -1: "worse than"}
    results = {}
    how = {arm: trained.shown(line, line.settings) for arm, line in claim.arms.items()}
    for one in claim.verdicts:
        sign, text = compare(one, found)
        results[one.better] = f"{words[sign]} {one.worse}, {one.metric} {text} ({how[one.better]})"
        mean, _ = trained.means(found[one.worse], one.metric)
        results[one.worse] = f"{one.metric} {mean:.4f}, to compare with ({how[one.worse]})"
    return results


def judge(verdict: Verdict, found: Found) -> str:
    """In words, with the difference."""
    sign, text = compare(verdict, found)
    if not text:
        return "not on this data (it has no such test pairs)"
    words = {1: "holds here", 0: "no difference seen here", -1: "the opposite here"}
    return f"{words[sign]} ({text})"


def compare(verdict: Verdict, found: Found) -> tuple[int, str]:
    """1: the better arm is better, -1: worse, 0: no difference seen; and the means ("": none)."""
    better, spread = trained.means(found[verdict.better], verdict.metric)
    worse, other = trained.means(found[verdict.worse], verdict.metric)
    if math.isnan(better) or math.isnan(worse):
        return 0, ""
    difference = better - worse
    error = math.sqrt((spread**2 + other**2) / len(trained.SEEDS))
    relative = difference / worse if worse else math.inf
    text = f"{better:.4f} against {worse:.4f}, {relative:+.1%}"
    if abs(difference) <= 2 * error or abs(relative) <= 0.01:
        return 0, text
    return (1 if difference > 0 else -1), text


def _words(metric: str) -> str:
    return {"recall_band1@20": "recall@20 of band 1"}.get(metric, metric.replace("_", " "))


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
