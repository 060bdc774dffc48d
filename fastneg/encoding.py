"""Columns of ids into codes and vocabularies: what the constructors of interactions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.errors import FastnegTypeError
from fastneg.row_columns import row_extras
from fastneg.vocabulary import Encoded, Vocabulary


class EncodedRows(NamedTuple):
    """Rows of codes, and the vocabularies that the codes are of."""

    users: Vocabulary
    items: Vocabulary
    row_users: IntArray
    row_items: IntArray
    row_weights: Float32Array | None
    row_times: AnyArray | None


def id_tables(call: str, like: Encoded | None, user_ids: Any, item_ids: Any) -> tuple[Any, Any]:
    """The ids of users and of items that come first: of ``like``, or those that are given."""
    if like is None:
        return user_ids, item_ids
    if not isinstance(like, Encoded):
        raise FastnegTypeError(f"{call}: like is a {type(like).__name__}, not Interactions")
    if user_ids is not None or item_ids is not None:
        checks.fail(call, "like= has all ids; give it without user_ids and item_ids")
    return like._users, like._items


def encode_rows(
    columns: Sequence[Any],
    tables: tuple[Any, Any],
    names: tuple[str, str, str, str],
    *,
    call: str,
    from_text: bool = False,
) -> EncodedRows:
    """Codes, weights and times of rows.

    Args:
        columns: users, items, weights or None, times or None.
        tables: ids (or vocabularies) of users and items that come first, or None.
        names: what errors call the columns.
        call: the function that was called, for errors.
        from_text: see ``Vocabulary.build``.

    Raises:
        FastnegError, FastnegTypeError: as ``Interactions.from_pairs``.
    """
    (users, row_users), (items, row_items) = (
        Vocabulary.build(
            columns[side], tables[side], call=call, name=names[side], table_name=table_name,
            from_text=from_text,
        )
        for side, table_name in enumerate(("user_ids", "item_ids"))
    )  # fmt: skip
    row_weights, row_times = row_extras(row_users, row_items, columns[2], columns[3], names, call)
    if len(users) == 0 or len(items) == 0:
        checks.fail(
            call, "users and items are empty; give at least one pair, or user_ids and item_ids"
        )
    return EncodedRows(users, items, row_users, row_items, row_weights, row_times)
