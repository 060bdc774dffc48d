"""``ExhaustedUserError``: raised before anything is drawn, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastneg.checks import fail
from fastneg.errors import ExhaustedUserError

if TYPE_CHECKING:
    from fastneg.samplers.hooks import Hooks, Plan


def refuse_exhausted(sampler: Hooks, plan: Plan, width: int, call: str) -> None:
    """Raise where a row has no item to draw, or without replacement fewer than ``width``."""
    needed = 1 if sampler.replacement else width
    if plan.surely and needed == 1:
        return
    bad = plan.allowed < needed
    if bad.any() and not sampler.replacement:
        bad = sampler._num_reachable(plan, needed) < needed
    if not bad.any():
        return
    first = np.flatnonzero(bad)[:1]
    why = sampler._reason(sampler._plan(plan.request.take(first)))
    if plan.request.lane:
        fail(call, f"fewer than {needed} items can be drawn: {why}")
    users = np.unique(plan.request.users[bad])
    shown = ", ".join(map(str, users[:5])) + (", ..." if len(users) > 5 else "")
    what = "no item" if needed == 1 else f"fewer than {needed} distinct items"
    raise ExhaustedUserError(
        f"{call}: {len(users)} users have {what} left to draw (users {shown}); "
        f"user {int(plan.request.users[first[0]])}: {why}; leave these rows out "
        "(sampler.exhausted_users() names the users for whom nothing is ever left)",
        users.tolist(),
        why,
    )


def known_clause(num_excluded: int, num_items: int, what: str = "items") -> str:
    """How much of what could come up is known or excluded."""
    if num_excluded == num_items:
        return f"all {num_items} {what} are known to the user or excluded by the request"
    return f"{num_excluded} of the {num_items} {what} are known or excluded"


def count_clause(num_left: int, num_reachable: int, num_items: int) -> str:
    """The same of items with counts, and how many have none."""
    if num_reachable == 0:
        return f"all {num_items} items have a count of 0 (smoothing > 0 draws them)"
    what = "items that can be drawn at all"
    clause = known_clause(num_reachable - num_left, num_reachable, what)
    if num_reachable < num_items:
        missing = num_items - num_reachable
        clause += f", and {missing} of {num_items} have a count of 0 (smoothing > 0 draws them)"
    return clause
