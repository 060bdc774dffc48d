"""A picture of a ``WindowDiagnosis``: risk, held-out shares, score gaps, popularity by rank."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from fastneg.mining.diagnosis import RankBucket, WindowDiagnosis


def draw(found: WindowDiagnosis) -> Any:
    """A Matplotlib figure of four panels, ranks logarithmic, the window shaded."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    _risk(panels[0, 0], found)
    _shares(panels[0, 1], found)
    _gaps(panels[1, 0], found)
    _popularity(panels[1, 1], found)
    for axes in panels.flat:
        axes.axvspan(
            found.window.first - 0.5, found.window.last + 0.5, color="tab:orange", alpha=0.15
        )
        axes.set_xscale("log")
        axes.set_xlim(0.9, max(2, found.buckets[-1].last))
        axes.set_xlabel("rank among non-positives")
    first, last = found.window.first, found.window.last
    figure.suptitle(f"ranks {first:,} to {last:,}: {found.verdict}")
    return figure


def _middle(bucket: RankBucket) -> float:
    return float((bucket.first * bucket.last) ** 0.5)


def _risk(axes: Any, found: WindowDiagnosis) -> None:
    measured = [b for b in found.buckets if b.density and b.density_upper is not None]
    if measured:
        middles, values = [_middle(b) for b in measured], [b.density or 0.0 for b in measured]
        above = [(b.density_upper or 0.0) - (b.density or 0.0) for b in measured]
        axes.errorbar(
            middles, values, yerr=[[0.0] * len(above), above], fmt="o-", capsize=2, label="measured"
        )
        axes.set_yscale("log")
    if found.base_rate > 0:
        axes.axhline(found.base_rate, color="gray", linestyle=":", label="uniform draws")
    axes.axhline(found.max_risk, color="tab:red", linestyle="--", label="allowed")
    axes.set_ylabel("held-out positives per negative")
    axes.legend(fontsize="small")


def _shares(axes: Any, found: WindowDiagnosis) -> None:
    total = 0.0
    sums = []
    for bucket in found.buckets:
        total += bucket.share or 0.0
        sums.append(total)
    axes.plot([b.last for b in found.buckets], sums, "o-")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("held-out positives up to the rank")


def _gaps(axes: Any, found: WindowDiagnosis) -> None:
    for name, label, colour in (
        ("gap_to_lowest", "lowest positive", "tab:blue"),
        ("gap_to_mean", "mean positive", "tab:green"),
    ):
        having = [b for b in found.buckets if getattr(b, name) is not None]
        if not having:
            continue
        middles = [_middle(b) for b in having]
        levels = [[getattr(b, name)[i] for b in having] for i in range(5)]
        axes.plot(middles, levels[2], "o-", color=colour, label=label)
        axes.fill_between(middles, levels[0], levels[4], color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0.0, color="gray", linestyle=":")
    axes.set_ylabel("positive's score less the member's")
    if axes.lines[:-1]:
        axes.legend(fontsize="small")


def _popularity(axes: Any, found: WindowDiagnosis) -> None:
    for name, label in (("popularity", "popularity percentile"), ("overlap", "overlap (Jaccard)")):
        having = [b for b in found.buckets if getattr(b, name) is not None]
        if having:
            axes.plot(
                [_middle(b) for b in having], [getattr(b, name) for b in having], "o-", label=label
            )
    axes.axhline(0.5, color="gray", linestyle=":", label="percentile of uniform draws")
    axes.set_ylim(0, 1)
    axes.set_ylabel("members")
    axes.legend(fontsize="small")
