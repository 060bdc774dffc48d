"""Explicit negatives: what a user was shown and did not take, or rejected.

They are rows of the interactions with weight 0 or less: never examples, never counted, never
excluded. The source ``"explicit"`` of a list of negatives draws from them, by user.
"""

from __future__ import annotations

import warnings

import numpy as np

from fastneg.checks import IntArray, fail
from fastneg.data.events import Events
from fastneg.interactions import Interactions
from fastneg.same_codes import same_codes


def explicit_lists(train: Interactions, kind: str = "explicit") -> tuple[IntArray, IntArray]:
    """(indptr, items): of each user the items of the rows with weight 0 or less, in row order.

    Args:
        train: with such rows.
        kind: the source that draws from them, for the error.

    Raises:
        FastnegError: there is no such row.
    """
    weights = train.row_weights
    rows = np.empty(0, np.int64) if weights is None else np.flatnonzero(weights <= 0)
    if not len(rows):
        fail(
            "explicit_lists",
            f"the source {kind!r} draws from rows with weight 0 or less, and there are none; "
            "give them as such rows or as a file of negatives",
        )
    users = train.row_users[rows]
    indptr = np.zeros(train.num_users + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=train.num_users), out=indptr[1:])
    items = train.row_items[rows][np.argsort(users, kind="stable")]
    return indptr, items.astype(np.int64)


def with_explicit_negatives(
    train: Interactions, negatives: Interactions, *, by_event: bool = False
) -> Interactions:
    """``train`` and, as rows of weight 0, the pairs of ``negatives``, whatever their weights.

    Args:
        train: keeps its users, items and codes.
        negatives: with the codes of ``train``; rows of further users or items are left out, with
            a warning that counts them.
        by_event: rows without a user (of ``Events``) are somebody else's business: the source
            ``"impressions"`` finds them by their event. Otherwise they are left out like those of
            further users.

    Raises:
        FastnegError: codes of other ids; no row is left, and none is found by its event.
    """
    same_codes("with_explicit_negatives", train=train, negatives=negatives)
    named = np.ones(negatives.num_rows, np.bool_)
    if isinstance(negatives, Events):
        named = negatives.row_users < negatives.num_known_users
    if by_event and not named.any():
        return train
    nameless = 0 if by_event else int((~named).sum())
    if by_event:
        negatives, named = negatives.select(named), named[named]
    known = (negatives.row_users < train.num_users) & (negatives.row_items < train.num_items)
    known &= named
    dropped = int((~known).sum())
    hint = (
        f"; {nameless} have no user, and the sources 'explicit' and 'reinforced' draw by user (the "
        "source 'impressions' finds them by --event-column)"
        if nameless
        else ""
    )
    if dropped == len(known):
        fail(
            "with_explicit_negatives",
            f"none of the {len(known)} negatives is of a user and an item that train knows{hint}",
        )
    if dropped:
        warnings.warn(
            f"{dropped} of {len(known)} negatives are left out: train does not know the user or "
            f"the item{hint}",
            UserWarning,
            stacklevel=2,
        )
    users, items = negatives.row_users[known], negatives.row_items[known]
    times = None if train.row_times is None else np.zeros(len(users), train.row_times.dtype)
    return train.append(
        train.decode_users(users),
        train.decode_items(items),
        weights=np.zeros(len(users), np.float32),
        times=times,
    )
