"""Rows of results, kept as JSON, shown as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.rounds import Spread

BEATEN = 1.05  # a result that beats its floor by more than this is a fault of the floor


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio of a row, or on its figure where there is no ratio."""

    value: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        return value >= self.value if self.at_least else value <= self.value

    def text(self, unit: str) -> str:
        return f"{'≥' if self.at_least else '≤'} {_short(self.value)}{unit}"


@dataclass
class Row:
    """One line of a table.

    Attributes:
        what: the workload.
        size: how large it is.
        threads: of ours.
        ours, other: the two figures, in ``unit``.
        against: what the other figure is of.
        ratio: other / ours, (median, lower quartile, upper quartile), paired by round.
        goal: in words.
        reached: whether; None where the row has no goal.
        kept, discarded: rounds.
        note: what a reader must know.
    """

    what: str
    size: str = ""
    threads: int = 1
    ours: float | None = None
    other: float | None = None
    unit: str = "ns"
    against: str = ""
    ratio: tuple[float, float, float] | None = None
    goal: str = ""
    reached: bool | None = None
    kept: int = 0
    discarded: int = 0
    note: str = ""


@dataclass
class Group:
    """A table: its rows, and the lines that stand under it."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def skip(self, what: str, reason: str, size: str = "") -> None:
        """A row that says why there is no figure."""
        self.add(Row(what, size, note=f"skipped: {reason}", threads=0))


def compared(
    what: str,
    size: str,
    threads: int,
    ours: Spread,
    other: Spread,
    ratio: Spread,
    *,
    against: str,
    goal: Goal | None = None,
    floor: bool = False,
    unit: str = "ns",
    scale: float = 1.0,
    note: str = "",
) -> Row:
    """A row with a paired ratio; ``scale`` turns ns into ``unit``."""
    reached = None
    if math.isnan(ratio.median):
        note = _joined("no round had its second core", note)
    else:
        reached = None if goal is None else goal.reached(ratio.median)
        if floor and ratio.median > BEATEN:
            note = _joined("BEATS ITS FLOOR by more than 5 %: a fault of the floor", note)
    return Row(
        what,
        size,
        threads,
        _real(ours.median * scale),
        _real(other.median * scale),
        unit,
        against,
        None if math.isnan(ratio.median) else (ratio.median, ratio.low, ratio.high),
        "" if goal is None else goal.text("x"),
        reached,
        ratio.kept,
        ratio.discarded,
        note,
    )


def absolute(
    what: str,
    size: str,
    threads: int,
    ours: Spread,
    *,
    goal: Goal | None = None,
    unit: str = "ns",
    scale: float = 1.0,
    note: str = "",
) -> Row:
    """A row whose own figure is bounded, or only shown."""
    value = ours.median * scale
    reached = None if goal is None or math.isnan(value) else goal.reached(value)
    if math.isnan(value):
        note = _joined("no round had its second core", note)
    elif ours.kept > 1:
        note = _joined(f"quartiles {_short(ours.low * scale)} to {_short(ours.high * scale)}", note)
    return Row(
        what,
        size,
        threads,
        _real(value),
        unit=unit,
        goal="" if goal is None else goal.text(f" {unit}"),
        reached=reached,
        kept=ours.kept,
        discarded=ours.discarded,
        note=note,
    )


def _short(value: float) -> str:
    """Three digits that count, and no exponent before a million."""
    return f"{float(f'{value:.3g}'):,g}"


def _real(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


# Files -------------------------------------------------------------------------------------------


def as_json(group: Group) -> dict[str, Any]:
    rows = [asdict(row) for row in group.rows]
    plain: list[Any] = json.loads(json.dumps(rows, allow_nan=False))
    return {"title": group.title, "rows": plain, "notes": group.notes}


def load(path: Path) -> dict[str, Any]:
    """What was stored: {"groups": {name: ...}}; empty where there is no file."""
    if not path.exists():
        return {"groups": {}}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def write(folder: Path, stored: dict[str, Any], order: list[str], *, quick: bool) -> None:
    """Write results.json and RESULTS.md, each to a temporary name that is then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "results.json": json.dumps(stored, indent=1) + "\n",
        "RESULTS.md": markdown(stored, order, quick=quick),
    }
    for name, text in texts.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


_RULES = """\
Every ratio was measured side by side in one run: rounds in which each side is timed in turn, and
the median over the rounds of the ratio within a round, with its quartiles. A ratio is the other's
time over ours: 2 is twice as fast, and against a floor (the generator and one random read, the
fastest of {variants} ways of writing it) 1 is the limit of the machine. Rounds with two threads
in which pure arithmetic gained less than 1.6 from the second thread are discarded and counted.
Times are ns per draw (or per negative) where nothing else is said.
"""


def markdown(stored: dict[str, Any], order: list[str], *, quick: bool) -> str:
    """The page: how it was measured, the machine, a table per group."""
    from bench.floor import GATHERS

    command = "make bench ARGS=--quick" if quick else "make bench"
    lines = ["# Benchmarks", "", f"Made by `{command}`; the numbers are in results.json.", ""]
    if quick:
        lines += ["**A quick run: sizes and rounds too small for any claim.**", ""]
    lines += [_RULES.format(variants=len(GATHERS))]
    groups = {name: stored["groups"][name] for name in order if name in stored["groups"]}
    if not groups:
        return "\n".join(lines)
    latest = max(groups.values(), key=lambda group: str(group["when"]))["machine"]
    lines += ["| machine | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in latest.items()] + [""]
    lines += _verdict(groups)
    for name, group in groups.items():
        lines += [f"## {group['title']}", ""]
        lines += [f"`--only {name}`, {group['when']}, {group['seconds']:.0f} s.", ""]
        if group["machine"] != latest:
            changed = [f"{k} {v}" for k, v in group["machine"].items() if latest.get(k) != v]
            lines += [f"Measured elsewhere: {'; '.join(changed)}.", ""]
        lines += _table([Row(**row) for row in group["rows"]])
        lines += [f"- {note}" for note in group["notes"]] + [""]
    return "\n".join(lines)


def _verdict(groups: dict[str, Any]) -> list[str]:
    rows = [row for group in groups.values() for row in group["rows"]]
    judged = [row for row in rows if row["reached"] is not None]
    missed = [row for row in judged if not row["reached"]]
    faults = sum("BEATS ITS FLOOR" in row["note"] for row in rows)
    discarded = sum(row["discarded"] for row in rows)
    open_goals = sum(1 for row in rows if row["goal"] and row["reached"] is None)
    line = f"Goals: {len(judged) - len(missed)} of {len(judged)} reached."
    if open_goals:
        line += f" {open_goals} could not be judged: no round had its second core."
    if faults:
        line += f" {faults} results beat their floor: faults of the floor."
    if discarded:
        line += f" {discarded} figures of two-thread rounds were discarded."
    return [line, ""]


def _rounds(row: Row) -> str:
    if not row.kept and not row.discarded:
        return ""
    return f"{row.kept}" + (f" of {row.kept + row.discarded}" if row.discarded else "")


_COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("what", lambda row: row.what),
    ("size", lambda row: row.size),
    ("threads", lambda row: str(row.threads or "")),
    ("ours", lambda row: _figure(row.ours, row.unit)),
    ("against", lambda row: row.against),
    ("its figure", lambda row: _figure(row.other, row.unit)),
    ("ratio (quartiles)", lambda row: _ratio(row.ratio)),
    ("goal", lambda row: row.goal),
    ("reached", lambda row: {True: "yes", False: "**no**", None: ""}[row.reached]),
    ("rounds", _rounds),
    ("note", lambda row: row.note),
]


def _table(rows: list[Row]) -> list[str]:
    """Columns in which every cell is empty are left out."""
    if not rows:
        return []
    columns = [(head, [_cell(show(row)) for row in rows]) for head, show in _COLUMNS]
    columns = [(head, cells) for head, cells in columns if any(cells)]
    lines = ["| " + " | ".join(head for head, _ in columns) + " |", "|---" * len(columns) + "|"]
    for place in range(len(rows)):
        lines += ["| " + " | ".join(cells[place] for _, cells in columns) + " |"]
    return [*lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    if 0 < abs(value) < 0.1:
        return f"{value:.2g} {unit}"
    return f"{value:,.{digits}f} {unit}"


def _ratio(ratio: tuple[float, float, float] | None) -> str:
    if ratio is None:
        return ""
    digits = 2 if ratio[0] < 10 else 1 if ratio[0] < 100 else 0
    median, low, high = (f"{value:,.{digits}f}" for value in ratio)
    return f"{median} ({low} to {high})"
