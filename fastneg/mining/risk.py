"""How many mined negatives are held-out positives, how sure that is, and which window to suggest.

Held-out positives are the only false negatives that can be counted. Their share among a window's
members is what uniform draws from it would bring, and a lower limit of all false negatives: what
nobody has recorded yet is not in it.

Legend: S sampled queries, H held-out positives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastneg.checks import IntArray
from fastneg.samplers.audit_tally import chi_square_survival

CONFIDENCE = 0.95  # of upper limits, one-sided
FEWEST = 30  # held-out positives below which no window is called safe
_ABSOLUTE = 1e-3
_TIMES_UNIFORM = 2.0
_STEPS = (1, 2, 3, 5, 7)


class Found(NamedTuple):
    """Held-out positives at the ranks of a window.

    Attributes:
        members: pairs of a query and a rank of the window that the query has.
        held_out: how many of them are held-out positives.
        density: their share; 0 where there are no members.
        upper: the upper limit of the share; 1 where there are no members.
    """

    members: int
    held_out: int
    density: float
    upper: float


class Suggestion(NamedTuple):
    """A window, or None, and why."""

    window: tuple[int, int] | None
    reason: str


class RanksOfHeldOut(NamedTuple):
    """What is counted.

    Attributes:
        ranks: int64 [H], from 1.
        owners: int64 [H], the query of each, 0..S-1.
        depths: int64 [S], non-positives of each query: the ranks that there are.
    """

    ranks: IntArray
    owners: IntArray
    depths: IntArray

    @property
    def base_rate(self) -> float:
        """The share of held-out positives among all non-positives: what a uniform draw brings."""
        return self.ranks.size / max(1, int(self.depths.sum()))

    def at(self, first: int, last: int) -> Found:
        """The members of a window, and the held-out positives among them."""
        members = int(np.clip(np.minimum(self.depths, last) - (first - 1), 0, None).sum())
        inside = (self.ranks >= first) & (self.ranks <= last)
        held_out = int(inside.sum())
        if members == 0:
            return Found(0, held_out, 0.0, 1.0)
        per_query = np.bincount(self.owners[inside], minlength=self.depths.size)
        limit = upper_count(held_out, dispersion(per_query))
        return Found(members, held_out, held_out / members, min(1.0, limit / members))


def dispersion(counts: IntArray) -> float:
    """Variance over mean of counts per query, 1 or more: those of one query come together."""
    number, total, squares = counts.size, int(counts.sum()), int((counts * counts).sum())
    if number < 2 or total == 0:
        return 1.0
    return max(1.0, (number * squares - total * total) / ((number - 1) * total))


def upper_count(count: int, spread: float = 1.0) -> float:
    """The upper limit, at ``CONFIDENCE``, of what a count is of on average.

    For Poisson counts (spread 1) it is exact: the mean at which so few have a chance of
    1 - ``CONFIDENCE``. Counts that vary more are taken for ``spread`` times a Poisson count.

    Source: Garwood 1936, Fiducial limits for the Poisson distribution.
    """
    scaled = count / spread
    low, high = scaled, scaled + 10.0 + 4.0 * math.sqrt(scaled + 1.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        # P(Poisson(m) <= k) = P(chi-square with 2k + 2 degrees of freedom > 2m)
        if chi_square_survival(2.0 * middle, 2.0 * scaled + 2.0) > 1.0 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return spread * high


def default_max_risk(base_rate: float) -> float:
    """One in a thousand, or twice what a uniform draw brings, whichever is more.

    Held-out positives are a part of those that training does not know: at ten times as many, one in
    a thousand is one false negative in a hundred. No window can be asked to be much better than
    uniform draws, which in a small catalog bring more than that.
    """
    return max(_ABSOLUTE, _TIMES_UNIFORM * base_rate)


def starts_of(width: int, depth: int, first: int) -> list[int]:
    """First ranks that are tried, ascending: 1, 11, 21, 31, 51, 71, 101, ..., and ``first``.

    Those from which ``width`` ranks end at ``depth`` or before.
    """
    tried = {1, first}
    power = 10
    while power < depth:
        tried |= {step * power + 1 for step in _STEPS}
        power *= 10
    return sorted(one for one in tried if 1 <= one <= depth - width + 1)


def verdict(found: Found, total: int, max_risk: float) -> tuple[str, str]:
    """("safe" | "unsafe" | "uncertain" | "empty", why) of one window.

    Args:
        found: of the window.
        total: held-out positives at any rank.
        max_risk: the largest share of held-out positives that is safe.
    """
    if found.members == 0:
        return "empty", "no query has items at these ranks"
    if total < FEWEST:
        return "uncertain", f"{total:,} held-out positives in all; {FEWEST} are the least"
    allowed, most = one_in(max_risk), one_in(found.upper)
    if found.density > max_risk:
        return "unsafe", f"{one_in(found.density)} is a held-out positive, {allowed} is allowed"
    if found.upper > max_risk:
        return "uncertain", (
            f"up to {most} may be a held-out positive, {allowed} is allowed; more queries with "
            "held-out positives would tell"
        )
    return "safe", f"at most {most} is a held-out positive, {allowed} is allowed"


def suggest(held: RanksOfHeldOut, window: tuple[int, int], max_risk: float) -> Suggestion:
    """The window of the same width that starts as early as is safe.

    Starts are tried from the deepest up, as long as half of the queries have all the ranks, and the
    last one before the first failure is taken: a window is safe only if those behind it are, and
    trying many does not weaken the limit, since each is tested only after all before it passed.
    """
    width, total = window[1] - window[0] + 1, held.ranks.size
    if total < FEWEST:
        return Suggestion(None, f"{total:,} held-out positives in all; {FEWEST} are the least")
    allowed = one_in(max_risk)
    best: tuple[int, int] | None = None
    for start in reversed(starts_of(width, int(np.median(held.depths)), window[0])):
        stop = start + width - 1
        found = held.at(start, stop)
        if found.upper > max_risk and best is None:
            return Suggestion(
                None,
                f"even at ranks {start:,} to {stop:,}, {found.held_out:,} of {found.members:,} are "
                f"held-out positives: up to {one_in(found.upper)}, {allowed} is allowed",
            )
        if found.upper > max_risk:
            break
        best = (start, stop)
    if best is None:
        return Suggestion(None, f"most queries have fewer than {width:,} non-positives")
    return Suggestion(best, f"the earliest where at most {allowed} is a held-out positive")


def one_in(share: float) -> str:
    """``one in 812`` for a share above 0."""
    return f"one in {1 / share:,.0f}" if share < 0.1 else f"one in {1 / share:,.1f}"
