"""What a sampler announces against what it draws: a test that any sampler can be put to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastneg.checks import FloatArray, as_flag, as_integer, as_path, fail
from fastneg.errors import FastnegError, one_line, system_reason
from fastneg.interactions import Interactions
from fastneg.samplers.audit_tally import Tally, as_asked
from fastneg.samplers.base import Sampler
from fastneg.samplers.known import same_catalog

if TYPE_CHECKING:
    from pathlib import Path

MAX_ITEMS = 2**27
_LEVEL = 1e-6  # a right sampler is suspected once in a million audits
_SUM_ERROR = 1e-4  # log_q is float32
_LOG_Q_ERROR = 1e-3


@dataclass(frozen=True)
class WorstItem:
    """An item, its announced and its empirical share of all draws, and their distance.

    Without replacement ``announced`` and ``empirical`` are of sums weighted by 1/inclusion.
    """

    item: int
    announced: float
    empirical: float
    z: float


@dataclass(frozen=True, repr=False, eq=False)
class Audit:
    """What ``Sampler.audit`` found; ``print`` shows it as a table.

    Attributes:
        sampler: its repr.
        shared: whether ``sample_shared`` was audited, and not ``sample`` for given users.
        replacement: False compares sums weighted by 1/inclusion instead of counts.
        num_draws, num_negatives, num_items: draws in all, draws a row, size of the catalog.
        statistic, degrees_of_freedom, p_value: the chi-square test of drawn against announced.
            Cells that expect fewer than 20 draws are pooled. Where rows differ the degrees of
            freedom are the statistic's expectation, which need not be whole.
        num_drawable: items with a probability above 0 in some row.
        coverage, expected_coverage: the share of them that came up, and that should (about, without
            replacement).
        worst: the items farthest off, farthest first; items that must not come up before all.
        false_negatives: share of known positives among the draws (for shared draws: averaged over
            the given users); None where no positives are known.
        total_probability: the sum of q over all items; of all rows, the one farthest from 1.
        log_q_error: the largest distance between a log_q that came with a draw and ``log_q``.
        importance_weight: the mean of 1 / (M q) over the draws, M the drawable items: 1 expected,
            but for rare items that too few draws cannot show.
        sources: share of each of ``source_names`` among the draws.
        announced: float64 [N], expected share of each item.
        empirical: float64 [N], what came up.
    """

    sampler: str
    shared: bool
    replacement: bool
    num_draws: int
    num_negatives: int
    num_items: int
    statistic: float
    degrees_of_freedom: float
    p_value: float
    num_drawable: int
    coverage: float
    expected_coverage: float
    worst: tuple[WorstItem, ...]
    false_negatives: float | None
    total_probability: float
    log_q_error: float
    importance_weight: float
    sources: dict[str, float]
    announced: FloatArray
    empirical: FloatArray

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the sampler is suspicious; empty if it is not."""
        found = []
        if self.p_value < _LEVEL:
            found.append(f"draws do not follow log_q (p = {self.p_value:.2g})")
        if not abs(self.total_probability - 1.0) <= _SUM_ERROR:
            found.append(f"q adds up to {self.total_probability:.6g}")
        if not self.log_q_error <= _LOG_Q_ERROR:
            found.append(f"log_q of draws is off by {self.log_q_error:.2g}")
        if not self.shared and self.false_negatives:
            found.append(f"{self.false_negatives:.2%} of the draws are known positives")
        return tuple(found)

    @property
    def ok(self) -> bool:
        return not self.reasons

    def __str__(self) -> str:
        kind = "sample_shared" if self.shared else "sample"
        how = f"{self.num_draws:,} by {kind}, {self.num_negatives:,} a row"
        if not self.replacement:
            how += ", without replacement"
        freedom = f"{self.degrees_of_freedom:,.1f} degrees of freedom"
        came = f"{self.coverage:.2%} of {self.num_drawable:,} items"
        lines = [
            ("sampler", self.sampler),
            ("draws", how),
            ("chi-square", f"{self.statistic:,.1f} with {freedom}, p = {self.p_value:.3g}"),
            ("coverage", f"{came}, {self.expected_coverage:.2%} expected"),
            ("sum of q", f"{self.total_probability:.6f}"),
            ("log_q error", f"{self.log_q_error:.1e}"),
            ("mean 1/(M q)", f"{self.importance_weight:.4f}"),
        ]
        if self.false_negatives is not None:
            lines.append(("positives", f"{self.false_negatives:.4%} of the draws"))
        if len(self.sources) > 1:
            shares = ", ".join(f"{name} {share:.2%}" for name, share in self.sources.items())
            lines.append(("sources", shares))
        for place, item in enumerate(self.worst[:3]):
            shares = f"announced {item.announced:.4g}, drawn {item.empirical:.4g}"
            what = f"item {item.item}: {shares} (z = {item.z:+.1f})"
            lines.append(("" if place else "worst items", what))
        verdict = f"OK (p = {self.p_value:.3g})"
        if self.degrees_of_freedom == 0 and self.ok:
            verdict = "nothing to test: one cell; more draws may tell more"
        lines.append(("verdict", verdict if self.ok else "SUSPICIOUS: " + "; ".join(self.reasons)))
        return "\n".join(f"{name:<13}{text}" for name, text in lines)

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays over all items, JSON-able; with ``ok`` and ``reasons``."""
        values = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("announced", "empirical", "worst")
        }
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[name] = None  # JSON knows no infinity
        worst = [
            {**item.__dict__, "z": item.z if math.isfinite(item.z) else None} for item in self.worst
        ]
        return {**values, "worst": worst, "ok": self.ok, "reasons": list(self.reasons)}

    def plot(self, path: str | Path | None = None) -> Any:
        """Announced against empirical shares, both logarithmic; a Matplotlib figure.

        Args:
            path: where to write it, if anywhere; the suffix gives the format.

        Raises:
            FastnegError: Matplotlib is not installed.
        """
        if path is not None:
            path = as_path(path, call="Audit.plot", name="path")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise FastnegError(
                "Audit.plot: Matplotlib is not installed; pip install fastneg[plot]"
            ) from error
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        drawn = (self.announced > 0) & (self.empirical > 0)
        axes.loglog(self.announced[drawn], self.empirical[drawn], ".", markersize=3, alpha=0.5)
        if drawn.any():
            ends = [float(self.announced[drawn].min()), float(self.announced[drawn].max())]
            axes.loglog(ends, ends, "-", linewidth=1, color="black")
        axes.set_xlabel("announced share")
        axes.set_ylabel("empirical share")
        axes.set_title(f"{self.num_draws:,} draws, p = {self.p_value:.3g}")
        if path is not None:
            try:
                figure.savefig(path)
            except (OSError, ValueError) as error:
                reason = system_reason(error) if isinstance(error, OSError) else one_line(error)
                raise FastnegError(f"Audit.plot: {path} cannot be written: {reason}") from error
        return figure


def audit(
    sampler: Sampler,
    num_draws: int,
    *,
    users: Any = None,
    positives: Any = None,
    times: Any = None,
    num_negatives: int | None = None,
    shared: bool | None = None,
    interactions: Interactions | None = None,
    num_worst: int = 10,
    seed: int = 0,
) -> Audit:
    """Draw, count, and compare with what the sampler announces by ``log_q``.

    The draws come from a stream of their own (``sampler.spawn``), so that the sampler stays where
    it is. Time and memory: the announced distribution of every row given (or one, without users)
    over all items; blocks keep it to some 100 MB and a few arrays of N.

    Args:
        sampler: any sampler.
        num_draws: draws in all, rounded up to whole rows.
        users: codes [U], drawn for in turn; without them ``sample_shared`` is audited.
        positives, times: [U] (without users, ``times`` [T] or one time for ``sample_shared``).
        num_negatives: K, draws a row; by default 100 (10 without replacement), or as many as fit
            for shared draws with replacement.
        shared: True audits ``sample_shared`` and takes ``users`` for those whose positives are
            looked for among the draws; by default whether nothing is given by row.
        interactions: the known positives; by default the sampler's.
        num_worst: how many items to list.
        seed: selects the stream of this audit.

    Raises:
        FastnegError: bad arguments, or whatever the sampler raises.
    """
    call = "audit"
    total = as_integer(num_draws, call=call, name="num_draws", minimum=1, maximum=2**48)
    seed = as_integer(seed, call=call, name="seed", minimum=-(2**64), maximum=2**64)
    num_worst = as_integer(num_worst, call=call, name="num_worst", minimum=0)
    if not isinstance(sampler, Sampler):
        fail(call, f"sampler is a {type(sampler).__name__}, not a sampler")
    if sampler.num_items > MAX_ITEMS:
        fail(call, f"{sampler.num_items} items; every one is counted, {MAX_ITEMS} at most")
    if shared is not None:
        shared = as_flag(shared, call=call, name="shared")
    else:
        shared = users is None and positives is None
    if num_negatives is None:
        num_negatives = min(total, 1 << 18 if shared else 100)
        if not sampler.replacement:
            num_negatives = 10
    width = as_integer(num_negatives, call=call, name="num_negatives", minimum=1, maximum=2**26)
    known = sampler.interactions if interactions is None else interactions
    if interactions is not None:
        same_catalog(call, interactions, sampler)
    asked = as_asked(users, positives, times, shared=shared, known=known, call=call)
    tally = Tally(sampler.spawn(f"audit {seed}"), asked, width, -(-total // width))
    tally.draw()
    tally.announce()
    test = tally.test()
    worst = tuple(
        WorstItem(item, float(test.announced[item]), float(test.empirical[item]), z)
        for item, z in tally.worst(num_worst)
    )
    drawable = tally.expected > 0
    draws = tally.width * tally.num_rows
    sources = zip(sampler.source_names, (tally.tags / draws).tolist(), strict=True)
    return Audit(
        sampler=repr(sampler),
        shared=shared,
        replacement=sampler.replacement,
        num_draws=draws,
        num_negatives=width,
        num_items=sampler.num_items,
        statistic=test.statistic,
        degrees_of_freedom=test.degrees_of_freedom,
        p_value=test.p_value,
        num_drawable=int(drawable.sum()),
        coverage=float((tally.counts[drawable] > 0).mean()),
        expected_coverage=float(-np.expm1(tally.log_missed[drawable]).mean()),
        worst=worst,
        false_negatives=tally.false_negatives(),
        total_probability=tally.total_probability,
        log_q_error=tally.log_q_error,
        importance_weight=tally.importance_weight(),
        sources=dict(sources),
        announced=test.announced,
        empirical=test.empirical,
    )
