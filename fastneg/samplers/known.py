"""The union of the positives that several samplers know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastneg.checks import IntArray
from fastneg.interactions import Interactions
from fastneg.same_codes import same_codes
from fastneg.samplers.base import Sampler


def all_known(call: str, sources: Mapping[str, Interactions | None]) -> Interactions | None:
    """Interactions that hold every positive of the sources; None where no source knows any.

    The first source itself where the others have the same positives, so that tables and filters
    that were made for it serve all; else new interactions of all pairs, of the same ids.

    Args:
        call: the function that was called, for errors.
        sources: by what errors call them, of equal numbers of users and items (checked by the
            caller); None for no users.

    Raises:
        FastnegError: their codes mean different ids.
    """
    same_codes(call, **sources)
    known: list[Interactions] = []
    for source in sources.values():
        if source is not None and not any(_same_positives(source, other) for other in known):
            known.append(source)
    if len(known) < 2:
        return known[0] if known else None
    users = np.concatenate([_owners(source) for source in known])
    items = np.concatenate([source.positive_items for source in known])
    return Interactions(known[0]._users, known[0]._items, users, items)


def same_catalog(call: str, interactions: Interactions, *samplers: Sampler | None) -> None:
    """Raise unless samplers draw for the codes of these interactions.

    A sampler over counts or a number of items has no ids to compare.

    Raises:
        FastnegError: a sampler was made from interactions whose codes mean other ids.
    """
    theirs = {
        f"the interactions of the sampler {sampler.name!r}": sampler.interactions
        for sampler in samplers
        if sampler is not None
    }
    same_codes(call, interactions=interactions, **theirs)


def _owners(source: Interactions) -> IntArray:
    """int64 [positives]: the user of each positive."""
    return np.repeat(np.arange(source.num_users), source.user_positive_counts)


def _same_positives(one: Interactions, other: Interactions) -> bool:
    return one is other or (
        np.array_equal(one.positive_indptr, other.positive_indptr)
        and np.array_equal(one.positive_items, other.positive_items)
    )
