"""What a mining job did: counts that tell whether its negatives are what was meant."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MiningReport:
    """Counts and settings of one job; ``str()`` for people, ``to_dict()`` for JSON.

    Attributes:
        num_queries: Q.
        num_items: N.
        num_negatives: draws asked of each query.
        window: first and last rank, inclusive.
        metric: "ip" or "cosine".
        strategy: "uniform", "top" or "softmax".
        seed: of the draws.
        full_rows: queries that got all their negatives.
        short_rows: queries that got fewer, padded with -1 (empty ones included).
        empty_rows: queries that got none.
        missing_negatives: padded places over all rows.
        window_members: items in all windows, before any rule.
        rejected_by_score: of these, outside min_score .. max_score.
        rejected_by_margin: of the rest, too close to the query's lowest positive.
        rejected_by_group: of the rest, of the wrong group.
        rejected_by_duplicate: of the rest, twins of a positive, where ``drop_duplicates`` says so.
        duplicates_mined: drawn items that are twins of a positive of their query: their vector or
            their score equals that positive's (see ``mine_hard_negatives``).
        copies_mined: of these, those whose vector equals a positive's.
        positives_removed: (query, positive) pairs left out before ranks were counted.
        queries_without_positives: to which no margin applies.
        distinct_items: items drawn at least once.
        max_per_item: the cap asked for, or None.
        realised_max_per_item: how often the most frequent item was drawn.
        search: the engine.
        effort: what was calibrated, such as {"nprobe": 16}; empty for exact search.
        recall_asked: the share of true window members asked for; None for exact search.
        recall: the share measured on ``recall_queries`` sampled queries; 1 for exact search.
        recall_queries: size of that sample; 0 for exact search.
        device: where the products were made.
        block_rows: queries of a block.
        seconds: wall-clock time of the call.
        user_ids: fingerprint of the ids of the users, where row u is user u and they are known.
        item_ids: likewise of the catalog.
    """

    num_queries: int
    num_items: int
    num_negatives: int
    window: tuple[int, int]
    metric: str
    strategy: str
    seed: int
    full_rows: int
    short_rows: int
    empty_rows: int
    missing_negatives: int
    window_members: int
    rejected_by_score: int
    rejected_by_margin: int
    rejected_by_group: int
    positives_removed: int
    queries_without_positives: int
    distinct_items: int
    max_per_item: int | None
    realised_max_per_item: int
    search: str
    effort: dict[str, int]
    recall_asked: float | None
    recall: float
    recall_queries: int
    device: str
    block_rows: int
    seconds: float
    rejected_by_duplicate: int = 0  # of folders that were written before these were counted
    duplicates_mined: int = 0
    copies_mined: int = 0
    user_ids: str | None = None
    item_ids: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for ``json.dumps``."""
        values = asdict(self)
        values["window"] = list(self.window)
        return values

    def __str__(self) -> str:
        members = max(1, self.window_members)
        effort = "".join(f", {name} {value}" for name, value in self.effort.items())
        how = (
            "exact"
            if self.recall_asked is None
            else (
                f"window recall {self.recall:.3f} (asked {self.recall_asked:.2f}) "
                f"on {self.recall_queries:,} queries"
            )
        )
        cap = "" if self.max_per_item is None else f" (cap asked: {self.max_per_item:,})"
        rejected = ", ".join(
            f"by {name} {count / members:.1%}"
            for name, count in (
                ("score", self.rejected_by_score),
                ("margin", self.rejected_by_margin),
                ("group", self.rejected_by_group),
                ("duplicate", self.rejected_by_duplicate),
            )
        )
        first, last = self.window
        rate = self.num_queries / max(self.seconds, 1e-9)
        lines = {
            "queries": f"{self.num_queries:,} over {self.num_items:,} items, {self.metric}",
            "window": f"ranks {first:,} to {last:,}",
            "draws": f"{self.num_negatives} of each, {self.strategy}, seed {self.seed}",
            "full rows": f"{self.full_rows:,}",
            "short rows": f"{self.short_rows:,} ({self.empty_rows:,} of them empty)",
            "padded places": f"{self.missing_negatives:,}",
            "window members": f"{self.window_members:,}",
            "rejected": rejected,
            "positives": f"{self.positives_removed:,} removed",
            "no positives": f"{self.queries_without_positives:,} queries",
            "duplicates": f"{self.duplicates_mined:,} drawn equal a positive by vector or score"
            f" ({self.copies_mined:,} by vector)",
            "items drawn": f"{self.distinct_items:,} distinct",
            "most drawn item": f"{self.realised_max_per_item:,} times{cap}",
            "search": f"{self.search}{effort}: {how}",
            "time": f"{self.seconds:.2f} s, {rate:,.0f} queries/s, products on {self.device}",
        }
        return "\n".join(f"{name:<16} {value}" for name, value in lines.items())


# whether to show a bar, or a function that hears (done, total) after each block and may raise
ShowProgress = bool | Callable[[int, int], object]


@contextmanager
def progress_bar(
    total: int, label: str, *, show: ShowProgress, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with rate and time left; yields ``advance(n)``; ``done`` are done already.

    Nothing is shown, and rich is not imported, unless ``show`` and stderr is a terminal. An
    interrupt restores the terminal and passes on. A function as ``show`` is called instead.
    """
    if callable(show):
        count, listener = done, show

        def tell(blocks: int) -> None:
            nonlocal count
            count += blocks
            listener(count, total)

        yield tell
        return
    if not (show and sys.stderr is not None and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done)
        yield lambda amount: progress.update(task, advance=amount)
