"""Leave-one-out among given candidates, such as published test negatives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastneg import checks
from fastneg.checks import IntArray
from fastneg.interactions import Interactions
from fastneg.same_codes import check_interactions
from fastneg.training.sampled_evaluation import SampledCandidates


def given_candidates(
    train: Interactions, users: Any, positives: Any, negatives: Any
) -> SampledCandidates:
    """Candidates for ``evaluate_sampled``: each test item with the items that it is ranked among.

    Args:
        train: whose codes these are (``train.encode_users(ids, unknown=-1)`` and
            ``encode_items`` give them), and which users are cold.
        users: int [Q]; rows of unknown users (-1) are left out and counted.
        positives: int [Q], the test item of each row; an unknown one (-1) is a miss.
        negatives: int [Q, n] padded with -1, or Q lists of codes of any lengths, in which -1 is an
            unknown item: those are left out, with one warning.

    Raises:
        FastnegError: lengths or codes that do not fit, a row whose positive is among its negatives
            or that names a negative twice, no row of a known user.
    """
    call = "given_candidates"
    check_interactions(call, train=train)
    owners = checks.as_codes(users, train.num_users, call=call, name="users", unknown=True)
    items = checks.as_codes(positives, train.num_items, call=call, name="positives", unknown=True)
    table = _as_table(call, negatives, train.num_items)
    rows = checks.same_length(call, users=owners, positives=items, negatives=table)
    ordered = np.sort(table, 1)
    for wrong, what in (
        ((table == items[:, None]) & (table >= 0), "is the row's positive"),
        ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0), "stands twice in its row"),
    ):
        if wrong.any():
            row, column = (int(one) for one in np.argwhere(wrong)[0])
            place = table if what.endswith("positive") else ordered[:, 1:]
            checks.fail(call, f"negatives[{row}]: item {place[row, column]} {what}")
    known = owners >= 0
    if not known.any():
        checks.fail(call, f"none of the {rows} rows is of a user of train")
    # ascending, and what is no item behind the last
    ordered = np.sort(np.where(table < 0, train.num_items, table), 1)
    ordered = np.where(ordered == train.num_items, -1, ordered)
    order = np.argsort(owners[known], kind="stable")
    owners = owners[known][order]
    return SampledCandidates(
        users=owners,
        positives=np.where(items < 0, train.num_items, items)[known][order],
        negatives=np.ascontiguousarray(ordered[known][order]),
        cold=train.user_positive_counts[owners] == 0,
        num_users=train.num_users,
        num_items=train.num_items,
        num_dropped=0,
        num_users_left_out=int((~known).sum()),
        seed=0,
    )


def _as_table(call: str, negatives: Any, num_items: int) -> IntArray:
    """int64 [Q, n], -1 where a row has fewer."""
    if isinstance(negatives, Sequence) and not isinstance(negatives, (str, bytes)):
        lists = [
            checks.as_codes(
                one, num_items, call=call, name=f"negatives[{row}]", ndim=1, unknown=True
            )
            for row, one in enumerate(negatives)
        ]
        table = np.full((len(lists), max((one.size for one in lists), default=0)), -1)
        for row, one in enumerate(lists):
            table[row, : one.size] = one
        unknown = sum(int((one < 0).sum()) for one in lists)
    else:
        table = checks.as_codes(
            negatives, num_items, call=call, name="negatives", ndim=2, unknown=True
        )
        unknown = 0  # padding
    if table.size == 0 or not (table >= 0).any():
        checks.fail(call, f"{checks.describe('negatives', table)} name no item of train")
    if unknown:
        warnings.warn(
            f"{call}: {unknown} negatives are items that train does not have; they are left out",
            UserWarning,
            stacklevel=3,
        )
    return table.astype(np.int64)
