"""What the epoch log says of each source, against a slow count."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastneg.training.list_statistics import ROWS, SourceStatistics
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from tests.training.inputs import mask, numbers
from tests.training.listed import Entry, columns_of_row, served
from tests.training.test_list_loss import BASE, LISTS, LOSSES, beside, data
from tests.training.test_trainer import trained

__all__ = ["beside", "data"]  # fixtures
COUNTS = np.array([3, 0, 7, 1, 12])


def counted(positive, scores, items, left_out, *, margin, temperature, num_own):
    """The same as ``SourceStatistics`` of one batch, cell by cell."""
    columns, values, over, known, users = 0, [], 0, 0, []
    rows = min(len(positive), ROWS)
    for b in range(rows):
        for c in range(scores.shape[1]):
            if left_out is not None and left_out[b, c]:
                known += 1
                continue
            columns += 1
            values.append(scores[b, c].item() / temperature)
            over += values[-1] > positive[b].item() / temperature - margin
            users.append(COUNTS[items[b, c] if items.ndim == 2 else items[c]])
    known = 0 if num_own is None else known - rows * num_own
    return {
        "columns": columns / rows,
        "mean_score": np.mean(values),
        "violations": over / columns,
        "known_positives": known / (columns + known),
        "popularity": np.mean(users),
    }


@pytest.mark.parametrize("rows", [5, ROWS + 9])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("masked", "num_own"), [(False, None), (True, None), (True, 0), (True, 1)])
def test_facts_are_the_slow_ones(rows, own, masked, num_own):
    statistics = SourceStatistics(("a", "b"), COUNTS, margin=0.4, temperature=0.5)
    positive, scores = numbers(rows), numbers(rows, 6, seed=3)
    items = torch.arange(rows * 6).view(rows, 6) % 5 if own else torch.arange(6) % 5
    left_out = None
    if masked:
        left_out = mask(rows, 6, seed=4)
        left_out[:, 0] = True
    statistics.add("b", positive, scores, items, left_out, num_own=num_own)
    report = statistics.report()
    expected = counted(
        positive, scores, items, left_out, margin=0.4, temperature=0.5, num_own=num_own
    )
    assert report["b"] == pytest.approx(expected)
    assert report["a"] == {
        "columns": 0.0,
        "mean_score": None,
        "violations": None,
        "known_positives": None,
        "popularity": None,
    }
    statistics.add("b", positive, scores, items, left_out, num_own=num_own)
    assert statistics.report()["b"] == pytest.approx(expected)  # means, not sums
    statistics.sums.zero_()
    assert statistics.report()["b"]["columns"] == 0.0


def test_a_batch_of_a_list_by_source(data, beside):
    train = data[0]
    every = [one for one in LISTS["all"] if one["source"] != "reinforced"]
    settings = BASE.replace(negatives=every, rounds=2, **LOSSES["softmax"])
    objective, model = Objective(train, settings, **beside), build_model(train, settings)
    for _, batch in zip(range(3), objective.batches, strict=False):  # 2 steps of warm-up
        queue: list[Entry] = []
        if objective.memory:
            part = {name.split("/")[1]: tensor for name, tensor in objective.memory.items()}
            filled = int(part["counts"][0])
            vectors, log_q = part["vectors"].clone().double(), part["log_q"].tolist()
            queue = [(int(part["items"][k]), vectors[k], log_q[k]) for k in range(filled)]
        for tensor in objective.sums.values():
            tensor.zero_()
        objective.loss(model, batch)
    report = objective.statistics()["sources"]
    assert served(objective).sum() == pytest.approx(1)
    with torch.no_grad():
        positive = model(batch.users, batch.items).double() / 0.2
        by_row = [
            columns_of_row(objective, model, batch, b, queue, beside["data"]) for b in range(64)
        ]
    for name, facts in report.items():
        rows = [by_source[name] for by_source in by_row]
        cells = [(b, one) for b, columns in enumerate(rows) for one in columns]
        left = [(b, one[0] / 0.2) for b, one in cells if one is not None]
        over = [score > positive[b] - settings.margin for b, score in left]
        known = len(cells) - len(left) - 64 * (name == "in-batch")
        assert facts["columns"] == len(left) / 64
        assert facts["mean_score"] == pytest.approx(np.mean([s for _, s in left]), abs=1e-4)
        assert facts["violations"] == pytest.approx(np.mean(over), abs=2 / len(over))
        assert facts["known_positives"] == pytest.approx(known / (len(left) + known))
    popularity = train.item_user_counts[batch.drawn[1].items.numpy()].mean()
    assert report["sampled"]["popularity"] == pytest.approx(popularity)
    assert report["dns"]["mean_score"] > report["sampled"]["mean_score"]


def test_the_log_has_them_each_epoch(data, tmp_path):
    settings = BASE.replace(negatives=LISTS["queue"], epochs=2, **LOSSES["softmax"])
    _, trainer = trained(data, settings, log=tmp_path / "metrics.jsonl")
    history = trainer.fit().history
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["sources"] for line in lines] == [line["sources"] for line in history]
    first, second = (line["sources"] for line in lines)
    assert list(first) == ["in-batch", "queue"]
    assert second["queue"]["columns"] > 0.5 * 40
    assert 0 < second["in-batch"]["known_positives"] < 1
    assert first["queue"] != second["queue"]
    assert "sources" not in trained(data, BASE.replace(epochs=1))[1].fit().history[0]
