"""Slow, obvious twins of the splits: sort one user's pairs at a time."""

from __future__ import annotations

from fractions import Fraction


def round_half_up(number: Fraction) -> int:
    return int((2 * number + 1) // 2)


def num_held(count: int, fraction: Fraction) -> int:
    """Pairs of ``count`` held out: a fraction, one at least from five on, never all."""
    held = round_half_up(count * fraction)
    if count >= 5:
        held = max(held, 1)
    return max(0, min(held, count - 1))


def ordered_pairs(
    users: list[int], items: list[int], weights: list[float] | None, times: list[float]
) -> dict[int, list[int]]:
    """user -> items by latest positive time, ties by the last row that has it."""
    latest: dict[tuple[int, int], tuple[float, int]] = {}
    for row, pair in enumerate(zip(users, items, strict=True)):
        if weights is not None and weights[row] <= 0:
            continue
        latest[pair] = max(latest.get(pair, (float("-inf"), -1)), (times[row], row))
    ordered: dict[int, list[int]] = {}
    for user, item in sorted(latest, key=lambda pair: latest[pair]):
        ordered.setdefault(user, []).append(item)
    return ordered
