"""Slow twins of the losses over a declarative list: one row, one column at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from fastneg.training.batches import Batch
from fastneg.training.dynamic_sampling import choice_uniforms
from fastneg.training.negative_list import UNCORRECTED, source_names
from fastneg.training.negatives import Objective
from fastneg.training.source_data import NOTHING, SourceData

# a column: its score, and its log Q where it has one
Column = tuple[float, float | None]
# an entry of a queue: its item, its vector, its log Q
Entry = tuple[int, torch.Tensor, float]


def groups(num_items: int) -> dict[str, np.ndarray]:
    """Small markets, regions of half the catalog, and some items without the one or the other."""
    items = np.arange(num_items)
    market = np.where(items % 11 == 0, -1, items % 5)
    return {"market": market, "region": np.where(items % 13 == 0, -1, items % 2)}


def columns_now(source: dict, epoch: int) -> int:
    """How many columns a source has in an epoch, counted from 0."""
    first, full, count = source["first_epoch"], source["full_epoch"], source["num_negatives"]
    if epoch + 1 < first:
        return 0
    if epoch + 1 >= full:
        return count
    return math.ceil(count * (epoch + 2 - first) / (full - first + 1))


def q_in_group(
    objective: Objective, source: dict, data: SourceData, known: set[int], positive: int
) -> np.ndarray:
    """float64 [N]: what a source ``"same-group"`` draws from for a row."""
    train = objective.train
    weights = np.ones(train.num_items)
    if source["sampler"] == "popularity":
        weights = train.item_user_counts.astype(float) ** objective.settings.exponent
    weights[list(known)] = 0
    for name in source["groups"]:
        labels = data.item_groups[name]
        inside = weights * (labels == labels[positive]) * (labels[positive] != -1)
        if np.count_nonzero(inside) >= source["min_items"]:
            weights = inside
            break
    return weights / weights.sum()


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


def picked_places(
    generator, source: dict, name: str, batch: Batch, b: int, candidates: list[int], epoch: int
) -> list[int]:
    """The places that a generator picks among the candidates, one by one."""
    user = generator.state["users"][batch.users[b]].double()
    weights = [
        math.exp(float(generator.state["items"][j].double() @ user) / source["temperature"])
        for j in candidates
    ]
    ends = np.cumsum(weights) / sum(weights)
    words = {"seed": 3, "epoch": epoch, "name": f"train/{name}"}
    u = choice_uniforms(batch.rows[b : b + 1], source["num_negatives"], **words)[0].tolist()
    return [int(np.searchsorted(ends, x, side="right")) for x in u]


def hardest(items: list[int], known: set[int], scores: list[float], count: int) -> list[int]:
    """The best of a batch's items that are not known, each once."""
    left = [j for j in dict.fromkeys(items) if j not in known]
    return sorted(left, key=lambda j: -scores[j])[:count]


def columns_of_row(
    objective: Objective, model, batch: Batch, b: int, queue: Iterable[Entry], data: SourceData
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
        if source["source"] == "mined" and name not in objective._list_loss.drawn:
            columns[name] = []
            continue
        if source["source"] == "reinforced":
            next(parts)  # what was shown
            candidates = next(parts).items[b].tolist()
            places = picked_places(objective._list_loss.generators[name], source, name, batch, b,
                                   candidates, objective.batches.epoch)  # fmt: skip
            columns[name] = [(scores[candidates[place]], None) for place in places]
            continue
        part = next(parts)
        if source["source"] in ("explicit", "impressions", "mined"):
            items = part.items[b].tolist()[: columns_now(source, objective.batches.epoch)]
            columns[name] = [(scores[j], None) for j in items]
            continue
        if source["source"] == "same-group":
            q = q_in_group(objective, source, data, known, int(batch.items[b]))
            columns[name] = [(scores[j], math.log(q[j])) for j in part.items[b].tolist()]
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


def written_out(
    objective: Objective,
    model,
    batch: Batch,
    queue: Iterable[Entry] = (),
    data: SourceData = NOTHING,
) -> float:
    """The loss of a batch, row by row; ``queue`` has what is in the queue and used."""
    settings = objective.settings
    frequency, losses = served(objective), []
    with torch.no_grad():
        for b in range(len(batch.users)):
            by_source = columns_of_row(objective, model, batch, b, queue, data)
            pair = model(batch.users[b : b + 1], batch.items[b : b + 1])
            positive = float(pair[0].double()) / settings.temperature
            q = float(frequency[batch.items[b]])
            losses.append(_row_loss(settings, positive, by_source, q, objective.train.num_items))
    return sum(losses) / len(losses)


def _row_loss(settings, positive: float, by_source: dict, q: float, num_items: int) -> float:
    every = [column for columns in by_source.values() for column in columns]
    left = [(score / settings.temperature, log_q) for score, log_q in filter(None, every)]
    scores = torch.tensor([score for score, _ in left]).double()
    if settings.loss == "bpr":
        return float(-logsigmoid(positive - scores).mean())
    if settings.loss == "bce":
        return float(-logsigmoid(torch.cat([torch.tensor([positive]), -scores])).mean())
    if settings.loss == "hinge":
        return float((scores - positive + settings.margin).clamp(min=0).mean())
    assert settings.loss == "sampled_softmax"
    weights = _hard_weights(settings)
    kinds = dict(zip(by_source, settings.negatives, strict=True))
    easy = sum(len(by_source[name]) for name in by_source if name not in weights)
    easy -= any(one["source"] == "in-batch" for one in settings.negatives)
    total = 0.0
    for name, columns in by_source.items():
        assert (name in weights) == (kinds[name]["source"] in UNCORRECTED)
        for score, log_q in filter(None, columns):
            e = math.exp(score / settings.temperature)
            if settings.correction == "none":
                total += e
            elif settings.correction == "both":
                total += e / math.exp(log_q)
            elif name in weights:  # the hard ones stand for a share of the items
                total += e * easy * num_items * weights[name] / len(every)
            else:
                total += e / math.exp(log_q) / len(every)
    if settings.correction == "both":
        positive -= math.log(q)
    return math.log(math.exp(positive) + total) - positive


def _hard_weights(settings) -> dict[str, float]:
    """The share of the catalog's items that one column of a hard source stands for."""
    names = source_names(settings.negatives)
    hard = {
        name: one
        for name, one in zip(names, settings.negatives, strict=True)
        if one["source"] in UNCORRECTED
    }
    together = sum(one["num_negatives"] for one in hard.values() if one.get("ratio") is None)
    return {
        name: 1 / settings.easy_to_hard / together
        if one.get("ratio") is None
        else 1 / one["ratio"] / one["num_negatives"]
        for name, one in hard.items()
    }
