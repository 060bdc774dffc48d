"""What several samplers know of the users' positives, taken together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastneg.checks import IntArray
from fastneg.interactions import Interactions


def all_known(sources: Iterable[Interactions | None]) -> Interactions | None:
    """Interactions that hold every positive of the sources; None where no source knows any.

    The first source itself where the others have the same positives, so that tables and filters
    that were made for it serve all; else new interactions of all pairs, of the same ids.

    Args:
        sources: of equal numbers of users and items (checked by the caller), None for no users.
    """
    known: list[Interactions] = []
    for source in sources:
        if source is not None and not any(_same_positives(source, other) for other in known):
            known.append(source)
    if len(known) < 2:
        return known[0] if known else None
    users = np.concatenate([_owners(source) for source in known])
    items = np.concatenate([source.positive_items for source in known])
    return Interactions(known[0]._users, known[0]._items, users, items)


def _owners(source: Interactions) -> IntArray:
    """int64 [positives]: the user of each positive."""
    return np.repeat(np.arange(source.num_users), source.user_positive_counts)


def _same_positives(one: Interactions, other: Interactions) -> bool:
    return one is other or (
        np.array_equal(one.positive_indptr, other.positive_indptr)
        and np.array_equal(one.positive_items, other.positive_items)
    )
