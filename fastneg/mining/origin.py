"""Which users and items the rows and codes of mined negatives are of, as far as it is known.

Mined negatives are row numbers and codes. What draws from them later has codes of its own, and
finds out by these fingerprints whether they mean the same ids.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastneg.checks import fail
from fastneg.vocabulary import Encoded, Vocabulary


class Origin(NamedTuple):
    """Fingerprints of ids, None where none are known.

    Attributes:
        user_ids: of the queries' users, where row u is user u.
        item_ids: of the catalog.
    """

    user_ids: str | None = None
    item_ids: str | None = None


def origin_of(
    positives: Any,
    query_users: Any,
    queries: Vocabulary | None = None,
    items: Vocabulary | None = None,
    *,
    call: str,
) -> Origin:
    """Of the positives' ids, and of the ids that were given for rows.

    Args:
        positives: Interactions, or anything else, which has no ids.
        query_users: where given, row u is not user u.
        queries, items: the ids of the rows, where they were given; of queries where each is of one.
        call: the function that was called, for errors.

    Raises:
        FastnegError: positives by row number whose rows have other ids.
    """
    users = None
    if isinstance(positives, Encoded):
        sides = [("item_ids", items, positives._items)]
        if query_users is None:
            sides.append(("query_ids", queries, positives._users))
        for name, given, own in sides:
            if given is not None:
                _refuse_others(call, name, given, own)
        items = positives._items if positives._items.named else items
        users = positives._users if positives._users.named else None
    users = users or queries
    return Origin(
        users.fingerprint() if users is not None and query_users is None else None,
        items.fingerprint() if items is not None and items.named else None,
    )


def _refuse_others(call: str, name: str, given: Vocabulary, own: Vocabulary) -> None:
    place = given.first_difference(own)
    if place is not None:
        ids = [one.decode([place], call=call, name=name).tolist()[0] for one in (given, own)]
        fail(
            call,
            f"{name}[{place}] = {ids[0]!r}, and code {place} of positives is {ids[1]!r}: positives "
            f"say which rows are known by their codes; give the vectors in the order of the codes, "
            f"or positives made with the ids of the rows (user_ids=, item_ids=)",
        )
