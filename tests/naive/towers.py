"""The history's mean and the evaluation by event, straight from the definitions."""

from __future__ import annotations

import math

import torch

from tests.naive.evaluation import ranked


def history_mean(
    histories: list[list[int]],
    users: list[int],
    targets: list[int] | None,
    table: torch.Tensor,
    empty: torch.Tensor,
) -> torch.Tensor:
    rows = []
    for place, user in enumerate(users):
        known = histories[user] if user >= 0 else []
        left = [item for item in known if targets is None or item != targets[place]]
        rows.append(table[left].mean(0) if left else empty)
    return torch.stack(rows)


def latest(items: list[int], times: list[float], length: int) -> list[int]:
    """The last items by time, of one time the higher ones first; ascending."""
    order = sorted(range(len(items)), key=lambda place: (times[place], items[place]))
    return sorted(items[place] for place in order[-length:])


def evaluate_events(
    scores: list[list[float]],
    events: list[tuple[int, int]],
    known: dict[int, set[int]],
    k: int,
) -> dict[str, float]:
    """Means over events (user or -1, item), whose scores are the rows of ``scores``.

    ``known`` are the training and validation positives of each user.
    """
    recalls, gains, reciprocal, shown = [], [], [], set()
    num_items = len(scores[0])
    for row, (user, item) in zip(scores, events, strict=True):
        masked = known.get(user, set()) if user >= 0 else set()
        if item in masked:
            continue
        order = ranked(row, masked)
        shown |= set(order[:k])
        rank = order.index(item) + 1 if item in order else math.inf
        recalls.append(float(rank <= k))
        gains.append(1 / math.log2(rank + 1) if rank <= k else 0.0)
        reciprocal.append(1 / rank)
    return {
        f"recall@{k}": sum(recalls) / len(recalls),
        f"ndcg@{k}": sum(gains) / len(gains),
        f"coverage@{k}": len(shown) / num_items,
        "mrr": sum(reciprocal) / len(reciprocal),
    }
