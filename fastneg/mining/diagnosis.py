"""What ``diagnose_window`` found: a table, a picture, JSON."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastneg.checks import as_path
from fastneg.errors import FastnegError, system_reason
from fastneg.files import refuse_special, replace_file
from fastneg.mining.risk import CONFIDENCE, one_in

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
HEADS = (0.01, 0.1)


@dataclass(frozen=True)
class RankBucket:
    """The items at some ranks of all sampled queries: a bucket, or the window itself.

    Attributes:
        first, last: ranks among non-positives, both included.
        members: pairs of a query and an item at one of its ranks.
        held_out: how many of them are held-out positives.
        share: of all held-out positives; None where there are none.
        density: held_out / members: the chance that a uniform draw from these ranks is a held-out
            positive. None where there are no members.
        density_upper: its upper limit, one-sided, at 95 % (see ``risk.upper_count``).
        lift: density over that of a uniform draw from all non-positives.
        gap_to_lowest: quantiles over queries (5, 25, 50, 75, 95 %) of the lowest score of the
            query's positives less the members' mean score; None beyond ``depth`` and where no
            query has positives.
        gap_to_mean: likewise, of the mean score of the query's positives.
        above_lowest: share of members that score above their query's lowest positive, of queries
            that have positives.
        popularity: mean popularity percentile of the members (the catalog's is 0.5).
        overlap: mean Jaccard index, over queries, of these members and the other model's.
    """

    first: int
    last: int
    members: int
    held_out: int
    share: float | None
    density: float | None
    density_upper: float | None
    lift: float | None
    gap_to_lowest: tuple[float, ...] | None = None
    gap_to_mean: tuple[float, ...] | None = None
    above_lowest: float | None = None
    popularity: float | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class WindowPopularity:
    """How popular the window's members are; uniform draws from the window are like them.

    Attributes:
        mean_percentile, median_percentile: of members; the catalog's are 0.5. An item's percentile
            is the share of items with lower counts, items of equal counts counted half.
        head_1, head_10: share of members among the most popular 1 % and 10 % of items.
        catalog_head_1, catalog_head_10: share of these items in the catalog, which is 1 % and 10 %
            rounded up to whole items.
        distinct_items: items that are a member for some sampled query.
        most_frequent: share of the sampled queries of whose windows the most frequent item is a
            member.
    """

    mean_percentile: float
    median_percentile: float
    head_1: float
    head_10: float
    catalog_head_1: float
    catalog_head_10: float
    distinct_items: int
    most_frequent: float


def picture_format(path: str | Path | None) -> str:
    """The format that a picture's suffix names ("png" where there is none); to ask before work.

    Raises:
        FastnegError: Matplotlib is not installed, or it does not know the format.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FastnegError(
            "WindowDiagnosis.plot: Matplotlib is not installed; pip install fastneg[plot]"
        ) from error
    suffix = "" if path is None else Path(path).suffix
    kind = suffix.removeprefix(".").lower() or "png"
    if kind not in Figure().canvas.get_supported_filetypes():
        raise FastnegError(
            f"WindowDiagnosis.plot: {path} has the suffix {suffix!r}; give .png, .svg or .pdf"
        )
    return kind


@dataclass(frozen=True, repr=False)
class WindowDiagnosis:
    """Is a rank window safe to mine? ``print`` shows a table.

    Attributes:
        window: the window asked about.
        buckets: the ranks of the whole catalog, in order.
        verdict: of the window: "safe", "unsafe", "uncertain" (too few held-out positives to tell)
            or "empty" (it lies beyond the catalog).
        reason: why.
        suggested: the earliest safe window of the same width, or None.
        suggestion_reason: why it, or why none.
        popularity: of the window's members; None without counts or members.
        duplicates: window members that are twins of one of their query's training positives: their
            vector or their score equals that positive's (see ``mine_hard_negatives``).
        max_risk: the share of held-out positives among members that is allowed.
        base_rate: the share among all non-positives: what a uniform draw brings.
        num_queries: sampled queries.
        num_with_held_out: queries that have held-out positives, of all.
        num_given: queries in all.
        num_items: N.
        num_held_out: held-out positives of the sampled queries.
        num_in_training: of these queries, held-out positives that are training positives as well:
            left out.
        num_without_positives: sampled queries without training positives, which have no gaps.
        depth: last rank whose items were looked at; held-out positives are ranked at any depth.
        metric: "ip" or "cosine".
        seed: of the sample.
    """

    window: RankBucket
    buckets: tuple[RankBucket, ...]
    verdict: str
    reason: str
    suggested: tuple[int, int] | None
    suggestion_reason: str
    popularity: WindowPopularity | None
    duplicates: int
    max_risk: float
    base_rate: float
    num_queries: int
    num_with_held_out: int
    num_given: int
    num_items: int
    num_held_out: int
    num_in_training: int
    num_without_positives: int
    depth: int
    metric: str
    seed: int

    @property
    def safe(self) -> bool:
        """Whether the verdict is "safe"."""
        return self.verdict == "safe"

    def __str__(self) -> str:
        sampled = f"{self.num_queries:,} of {self.num_with_held_out:,} with held-out positives"
        given = f"{self.num_given:,} given, {self.num_items:,} items, {self.metric}"
        facts = [
            ("queries", f"{sampled}; {given}"),
            ("held-out", self._held_out_text()),
            ("window", f"ranks {self.window.first:,} to {self.window.last:,}"),
            ("verdict", f"{self.verdict.upper()}: {self.reason}"),
            ("suggested", self._suggested_text()),
        ]
        if self.popularity is not None:
            one = self.popularity
            heads = f"{one.head_1:.1%} and {one.head_10:.1%} among the top 1 % and 10 %"
            text = f"percentile {one.mean_percentile:.2f} (catalog 0.50), {heads}"
            facts.append(("popularity", f"{text}; {one.distinct_items:,} distinct items"))
        if self.duplicates:
            text = f"{self.duplicates:,} of {self.window.members:,} members equal a positive"
            facts.append(("duplicates", f"{text}; drop_duplicates leaves them out"))
        if self.window.overlap is not None:
            facts.append(("overlap", f"{self.window.overlap:.3f} of the other model's (Jaccard)"))
        lines = [f"{name:<12}{text}" for name, text in facts]
        return "\n".join([*lines, "", *self._table()])

    __repr__ = __str__

    def _held_out_text(self) -> str:
        text = f"{self.num_held_out:,} positives"
        if self.num_held_out:
            text += f"; {one_in(self.base_rate)} uniform draws is one"
        if self.num_in_training:
            text += f"; {self.num_in_training:,} left out that training has as well"
        return text

    def _suggested_text(self) -> str:
        if self.suggested is None:
            return f"none: {self.suggestion_reason}"
        first, last = self.suggested
        return f"ranks {first:,} to {last:,}: {self.suggestion_reason}"

    def _table(self) -> list[str]:
        columns: list[tuple[str, Callable[[RankBucket], str]]] = [
            ("held-out", lambda b: f"{b.held_out:,}"),
            ("share", lambda b: _percent(b.share)),
            ("risk", lambda b: _one_in(b.density)),
            ("up to", lambda b: _one_in(b.density_upper)),
            ("x uniform", lambda b: "" if b.lift is None else f"{b.lift:,.1f}"),
            ("gap 5 %", lambda b: _number(b.gap_to_lowest, 0)),
            ("gap 50 %", lambda b: _number(b.gap_to_lowest, 2)),
            ("above", lambda b: _percent(b.above_lowest)),
            ("popularity", lambda b: "" if b.popularity is None else f"{b.popularity:.2f}"),
            ("overlap", lambda b: "" if b.overlap is None else f"{b.overlap:.3f}"),
        ]
        rows = [(f"{b.first:,}-{b.last:,}", b) for b in self.buckets]
        rows.append(("window", self.window))
        table = [["ranks", *(name for name, _ in columns)]]
        table += [[label, *(show(bucket) for _, show in columns)] for label, bucket in rows]
        used = [i for i in range(len(table[0])) if i == 0 or any(row[i] for row in table[1:])]
        widths = {i: max(len(row[i]) for row in table) for i in used}
        return [
            "  ".join(
                row[i].ljust(widths[i]) if i == 0 else row[i].rjust(widths[i]) for i in used
            ).rstrip()
            for row in table
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for ``json.dumps``."""
        values: dict[str, Any] = _plain(asdict(self))
        return {**values, "safe": self.safe, "quantiles": list(QUANTILES), "confidence": CONFIDENCE}

    def save_json(self, path: str | Path) -> None:
        """Write ``to_dict()`` under a temporary name and rename it.

        Raises:
            FastnegError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        call = "WindowDiagnosis.save_json"
        place = as_path(path, call=call, name="path")
        _replace(call, place, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def plot(self, path: str | Path | None = None) -> Any:
        """Risk, held-out shares, score gaps and popularity by rank; a Matplotlib figure.

        Args:
            path: where to write it, if anywhere; the suffix gives the format, and one it does not
                know is refused.

        Raises:
            FastnegError: Matplotlib is not installed, or the file cannot be written.
        """
        if path is not None:
            path = as_path(path, call="WindowDiagnosis.plot", name="path")
        kind = picture_format(path)
        from fastneg.mining.diagnosis_plot import draw

        figure = draw(self)
        if path is not None:
            _replace(
                "WindowDiagnosis.plot",
                path,
                lambda temporary: figure.savefig(temporary, format=kind),
            )
        return figure


def _replace(call: str, target: Path, write: Callable[[Path], Any]) -> None:
    if not target.name:
        raise FastnegError(f"{call}: cannot write {target}: it is a folder")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        refuse_special(target)
        write(temporary)
        replace_file(temporary, target)
    except OSError as error:
        raise FastnegError(f"{call}: cannot write {target}: {system_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _one_in(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"1 in {one_in(value)[7:]}"


def _number(values: tuple[float, ...] | None, place: int) -> str:
    return "" if values is None else f"{values[place]:+.3g}"
