"""Slow twins of the losses over a declarative list: one row, one column at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.nn.functional import logsigmoid

from fastneg.training.batches import Batch
from fastneg.training.dynamic_sampling import choice_uniforms
from fastneg.training.negative_list import UNCORRECTED, source_names
from fastneg.training.negatives import Objective

# a column: its score, and its log Q where it has one
Column = tuple[float, float | None]
# an entry of a queue: its item, its vector, its log Q
Entry = tuple[int, torch.Tensor, float]


def served(objective: Objective) -> torch.Tensor:
    """float64 [N], each item's share of the examples."""
    train = objective.train
    items = torch.tensor(train.row_items[train.positive_rows])
    counts = torch.bincount(items, minlength=train.num_items).double()
    return counts / counts.sum()


def chosen_places(source: dict, name: str, scores: list[float], row: int, epoch: int) -> list[int]:
    """The places that a dynamic source takes among its candidates."""
    words = {"seed": 3, "epoch": epoch, "name": f"train/{name}"}
    best = sorted(range(len(scores)), key=lambda j: -scores[j])
    if source["source"] == "dns-softmax":
        u = choice_uniforms(torch.tensor([row]), len(scores), **words)[0].tolist()
        keys = [s / source["temperature"] - math.log(-math.log(x)) for s, x in zip(scores, u)]  # noqa: B905
        return sorted(range(len(scores)), key=lambda j: -keys[j])[: source["num_negatives"]]
    top = best[: source["top"]]
    if source["num_negatives"] == len(top):
        return top
    u = choice_uniforms(torch.tensor([row]), len(top), **words)[0].tolist()
    return [top[m] for m in sorted(range(len(top)), key=u.__getitem__)][: source["num_negatives"]]


def hardest(items: list[int], known: set[int], scores: list[float], count: int) -> list[int]:
    """The best of a batch's items that are not known, each once."""
    left = [j for j in dict.fromkeys(items) if j not in known]
    return sorted(left, key=lambda j: -scores[j])[:count]


def columns_of_row(
    objective: Objective, model, batch: Batch, b: int, queue: Iterable[Entry]
) -> dict[str, list]:
    """The unmasked columns of row ``b``, by source; None stands for a masked one."""
    settings, train = objective.settings, objective.train
    num_items = train.num_items
    known = set(train.positives_of(int(batch.users[b])).tolist())
    user = model.embed_users(batch.users[b : b + 1])[0].double()
    scores = (model.embed_items(torch.arange(num_items)).double() @ user).tolist()
    frequency, rows = served(objective), len(batch.users)
    columns: dict[str, list] = {}
    parts = iter(batch.drawn)
    for name, source in zip(source_names(settings.negatives), settings.negatives, strict=True):
        if source["source"] == "in-batch":
            share = (rows - 1) / rows if settings.correction == "expected_count" else 1.0
            columns[name] = [
                None if j in known else (scores[j], math.log(frequency[j] * share))
                for j in batch.items.tolist()
            ]
            continue
        if source["source"] in ("in-batch-hard", "interpolated"):
            count = source["num_negatives"]
            items = hardest(batch.items.tolist(), known, scores, count)
            columns[name] = [(scores[j], None) for j in items]
            if source["source"] == "interpolated":
                words = {"seed": 3, "epoch": objective.batches.epoch, "name": f"train/{name}"}
                u = choice_uniforms(batch.rows[b : b + 1], count, **words)[0].tolist()
                shares = [source["low"] + x * (source["high"] - source["low"]) for x in u]
                own = scores[int(batch.items[b])]
                columns[name] = [
                    (a * own + (1 - a) * scores[j], None)
                    for a, j in zip(shares, items, strict=False)
                ]
            columns[name] += [None] * (count - len(items))
            continue
        if source["source"] == "queue":
            columns[name] = [
                None if j in known else (float(vector @ user), log_q) for j, vector, log_q in queue
            ]
            continue
        part = next(parts)
        if source["source"] == "explicit":
            columns[name] = [(scores[j], None) for j in part.items[b].tolist()]
            continue
        if source["source"].startswith("dns"):
            items = part.items[b].tolist()
            places = chosen_places(
                source,
                name,
                [scores[j] for j in items],
                int(batch.rows[b]),
                objective.batches.epoch,
            )
            columns[name] = [(scores[items[place]], None) for place in places]
            continue
        mass = torch.ones(num_items).double()
        if source["sampler"] == "popularity":
            mass = torch.tensor(train.item_user_counts).double() ** settings.exponent
        if source["shared"]:
            q = mass / mass.sum()
            columns[name] = [
                None if j in known else (scores[j], math.log(q[j])) for j in part.items.tolist()
            ]
        else:
            q = mass / (mass.sum() - mass[list(known)].sum())
            columns[name] = [(scores[j], math.log(q[j])) for j in part.items[b].tolist()]
    return columns


def written_out(objective: Objective, model, batch: Batch, queue: Iterable[Entry] = ()) -> float:
    """The loss of a batch, row by row; ``queue`` has what is in the queue and used."""
    settings = objective.settings
    frequency, losses = served(objective), []
    with torch.no_grad():
        for b in range(len(batch.users)):
            by_source = columns_of_row(objective, model, batch, b, queue)
            every = [column for columns in by_source.values() for column in columns]
            pair = model(batch.users[b : b + 1], batch.items[b : b + 1])
            positive = float(pair[0].double()) / settings.temperature
            q = float(frequency[batch.items[b]])
            losses.append(_row_loss(settings, positive, every, q, objective.train.num_items))
    return sum(losses) / len(losses)


def _row_loss(settings, positive: float, every: list, q: float, num_items: int) -> float:
    left = [(score / settings.temperature, log_q) for score, log_q in filter(None, every)]
    scores = torch.tensor([score for score, _ in left]).double()
    if settings.loss == "bpr":
        return float(-logsigmoid(positive - scores).mean())
    if settings.loss == "bce":
        return float(-logsigmoid(torch.cat([torch.tensor([positive]), -scores])).mean())
    if settings.loss == "hinge":
        return float((scores - positive + settings.margin).clamp(min=0).mean())
    assert settings.loss == "sampled_softmax"
    total = 0.0
    hard = [one for one in every if one is None or one[1] is None]
    num_hard = sum(
        source["num_negatives"] for source in settings.negatives if source["source"] in UNCORRECTED
    )
    easy = len(every) - num_hard - any(one["source"] == "in-batch" for one in settings.negatives)
    assert num_hard <= len(hard)
    for score, log_q in left:
        if settings.correction == "none":
            total += math.exp(score)
        elif settings.correction == "both":
            total += math.exp(score - log_q)
        elif log_q is None:  # the hard ones stand for 1 / easy_to_hard of the items
            total += (
                math.exp(score) * easy * num_items / settings.easy_to_hard / num_hard / len(every)
            )
        else:
            total += math.exp(score - log_q) / len(every)
    if settings.correction == "both":
        positive -= math.log(q)
    return math.log(math.exp(positive) + total) - positive
