"""The quality table: what is stored is not trained again, and validation alone chooses."""

from __future__ import annotations

import json

import pytest
import scipy.sparse

from bench import quality, trained
from bench.quality_lines import LINES, Published
from fastneg.data.splits import split_random
from fastneg.data.synthetic import generate_dataset

LINE = Published(
    "tiny-softmax",
    "tiny",
    "sampled-softmax",
    {"dim": 8, "epochs": 2, "batch_size": 64, "num_negatives": 16},
    {"learning_rate": [0.05, 1e-6]},
    goal=(0.0, 0.0),
    aim=(1.0, 1.0),
    published="none",
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    interactions = generate_dataset(40, 60, positives_per_user=12, seed=1).interactions
    split = split_random(interactions, fraction=0.2, seed=1, per_user=True)
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, part in (("train", split.train), ("test", split.test)):
        matrix = scipy.sparse.coo_matrix(
            ([1.0] * part.num_rows, (part.row_users, part.row_items)), shape=(40, 60)
        )
        scipy.sparse.save_npz(folder / f"{name}.npz", matrix.tocsr())
    monkeypatch.setattr(trained, "data_folder", lambda: tmp_path)
    trained.read.cache_clear()
    yield tmp_path / "runs.json"
    trained.read.cache_clear()


def test_runs_are_stored_and_made_once(data, monkeypatch):
    stored: trained.Stored = {}
    trained.measure(LINE, data, stored, tune_only=True)
    runs = stored[LINE.name]
    assert [json.loads(key)[0] for key in runs] == ["tune", "tune"]
    assert not any("test" in run for run in runs.values())  # unseen while settings are chosen
    assert trained.finished(LINE, runs) == []
    trained.measure(LINE, data, stored)
    assert sorted(json.loads(key)[0] for key in runs) == ["test"] * 3 + ["tune"] * 2
    assert [set(run) >= {"validation", "test"} for run in trained.finished(LINE, runs)] == [
        True
    ] * 3
    assert trained.load(data) == stored
    monkeypatch.setattr(trained, "train_recipe", None)  # a further run would fail
    trained.measure(LINE, data, trained.load(data))


def test_validation_chooses_and_the_table_shows_means(monkeypatch):
    points = list(trained.trials(LINE))
    assert [point["learning_rate"] for point in points] == [0.05, 1e-6]
    runs = {}
    for point, validation, test in zip(points, (0.1, 0.2), (0.9, 0.3), strict=True):
        runs[trained.run_key("tune", LINE, point, 0)] = {"validation": {"ndcg@20": validation}}
        for seed in trained.SEEDS:
            runs[trained.run_key("test", LINE, point, seed)] = {
                "test": {"recall@20": test + seed / 100, "ndcg@20": test},
                "epoch": seed,
                "seconds": 10.0 * seed,
            }
    assert trained.choose(LINE, runs) == (points[1], 2)
    monkeypatch.setattr(quality, "LINES", (LINE, LINES[0]))
    text = quality.markdown({LINE.name: runs}, {"processor": "P"})
    row = next(line for line in text.splitlines() if line.startswith("| tiny-softmax"))
    assert row == (
        "| tiny-softmax | 0.3100 ± 0.0100 | 0.3000 ± 0.0000 | 0 / 0 | 1 / 1 | goal | none | "
        "0, 1, 2 | 10 | 2 |"
    )
    assert "Not measured yet: gowalla-bpr." in text
    assert "- processor: P" in text
