"""Slow, obvious twins of Interactions: dictionaries and loops over rows."""

from __future__ import annotations

from typing import Any


def codes_by_appearance(
    values: list[Any], table: list[Any] | None = None
) -> tuple[list[Any], list[int]]:
    """(ids by code, code of each value): the table first, then as they appear."""
    ids = list(table or [])
    codes = []
    for value in values:
        if value not in ids:
            ids.append(value)
        codes.append(ids.index(value))
    return ids, codes


def positives(
    users: list[int],
    items: list[int],
    weights: list[float] | None = None,
    times: list[float] | None = None,
) -> dict[int, dict[int, tuple[float, float | None]]]:
    """user -> item -> (sum of the weights, latest time) over the rows with weight > 0."""
    found: dict[int, dict[int, tuple[float, float | None]]] = {}
    for row, (user, item) in enumerate(zip(users, items, strict=True)):
        weight = 1.0 if weights is None else weights[row]
        if weight <= 0:
            continue
        own = found.setdefault(user, {})
        before, latest = own.get(item, (0.0, None))
        time = None if times is None else times[row]
        if latest is not None and time is not None:
            time = max(latest, time)
        own[item] = (before + weight, time)
    return found


def mask(
    known: dict[int, dict[int, tuple[float, float | None]]], users: list[int], items: list[int]
) -> list[list[bool]]:
    """[B][C]: is the item a known positive of the user?"""
    return [[item in known.get(user, {}) for item in items] for user in users]
