"""Check that the codes of two interactions mean the same ids.

Codes are places in a vocabulary, so codes of one mean nothing in another. Two vocabularies agree
where the ids of the shorter one are the first ids of the longer one: codes never change when rows
are appended, and ids that one side lacks come behind those that both have. Interactions without ids
(``from_codes``, ``from_csr``) cannot be compared: their codes are assumed to be the other's.
"""

from __future__ import annotations

from typing import Any

from fastneg.checks import check_kind
from fastneg.errors import FastnegError
from fastneg.vocabulary import Encoded, Vocabulary


def check_interactions(call: str, *, optional: dict[str, Any] | None = None, **values: Any) -> None:
    """Raise on what are no interactions; those of ``optional`` may be None."""
    given = {name: value for name, value in (optional or {}).items() if value is not None}
    hint = "Interactions (Interactions.from_pairs, from_table, read and others make them)"
    check_kind(call, Encoded, hint, **values, **given)


def same_codes(call: str, **parts: Encoded | None) -> None:
    """Raise unless the codes of all parts mean the ids that they mean in the first one.

    Args:
        call: the function that was called, for errors.
        parts: interactions by the names of the arguments they came as; None is left out. Further
            users and items behind those of the first are fine.

    Raises:
        FastnegError: naming the first code that means two ids, and how to read what was meant.
    """
    present = [(name, part) for name, part in parts.items() if part is not None]
    for name, part in present[1:]:
        _compare(call, present[0][0], present[0][1], name, part)


def same_ids(call: str, train: Encoded, **tables: Any) -> None:
    """Raise unless rows of feature tables are those of the codes of ``train``.

    Args:
        call: the function that was called, for errors.
        train: interactions.
        tables: ``user_features`` and ``item_features``, or None; a table without ids
            (``FeatureTable.from_rows``) cannot be compared.

    Raises:
        FastnegError: naming the first code whose row is that of another id.
    """
    for name, table in tables.items():
        ids: Vocabulary | None = getattr(table, "ids", None)
        if ids is None:
            continue
        what, own = ("user", train._users) if name == "user_features" else ("item", train._items)
        code = own.first_difference(ids)
        if code is not None:
            both = [one.decode([code], call=call, name="codes").tolist()[0] for one in (own, ids)]
            raise FastnegError(
                f"{call}: row {code} of {name} is of {what} {both[1]!r}, and code {code} of train "
                f"is {both[0]!r}; make {name} with ids=train.{what}_ids"
            )


def agree(first: Encoded, second: Encoded) -> bool:
    """Whether the codes of both mean the same ids, as far as both have them."""
    return first is second or (
        first._users.first_difference(second._users) is None
        and first._items.first_difference(second._items) is None
    )


def _compare(call: str, first_name: str, first: Encoded, name: str, part: Encoded) -> None:
    if first is part:
        return
    for what, own, other in (
        ("user", first._users, part._users),
        ("item", first._items, part._items),
    ):
        code = own.first_difference(other)
        if code is None:
            continue
        ids = [one.decode([code], call=call, name="codes").tolist()[0] for one in (own, other)]
        raise FastnegError(
            f"{call}: {name} and {first_name} have other {what} ids: code {code} is {ids[1]!r} in "
            f"{name} and {ids[0]!r} in {first_name}; read or make {name} with like= (or user_ids= "
            f"and item_ids=) of {first_name}"
        )
