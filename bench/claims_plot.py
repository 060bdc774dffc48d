"""The picture of an experiment: bars of its first metric, or two metrics against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench import trained
from bench.claims_list import Claim


def draw(claim: Claim, found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Write a PNG."""
    labels = list(claim.arms)
    height = 3.6 if claim.plotted else 1.1 + 0.32 * len(labels)
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    if claim.plotted is None:
        metric = claim.verdicts[0].metric
        values = [trained.means(found[label], metric) for label in labels]
        bars = axes.barh(
            labels, [mean for mean, _ in values], xerr=[deviation for _, deviation in values],
            color="#4477aa", capsize=3,
        )  # fmt: skip
        axes.bar_label(bars, [f"{mean:.4f}" for mean, _ in values], padding=8, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(metric)
    else:
        across, up = claim.plotted
        sides = [[trained.means(found[label], name) for label in labels] for name in (across, up)]
        axes.errorbar(
            [mean for mean, _ in sides[0]], [mean for mean, _ in sides[1]],
            xerr=[deviation for _, deviation in sides[0]],
            yerr=[deviation for _, deviation in sides[1]], marker="o", color="#4477aa",
        )  # fmt: skip
        for label, (x, _), (y, _) in zip(labels, *sides, strict=True):
            axes.annotate(label, (x, y), textcoords="offset points", xytext=(5, 5))
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    axes.set_title(claim.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
