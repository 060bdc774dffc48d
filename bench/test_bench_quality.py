"""The quality table: what is stored is not trained again, and validation alone chooses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import scipy.sparse

from bench import quality, split_check, trained
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
    monkeypatch.setattr(split_check, "data_folder", lambda: tmp_path)
    trained.read.cache_clear()
    yield tmp_path / "runs.json"
    trained.read.cache_clear()


def test_runs_are_stored_and_made_once(data, monkeypatch):
    trained.measure(LINE, data, tune_only=True)
    runs = trained.load(data)[LINE.name]
    assert [json.loads(key)[0] for key in runs] == ["tune", "tune"]
    assert not any("test" in run for run in runs.values())  # unseen while settings are chosen
    assert trained.finished(LINE, runs) == []
    trained.measure(LINE, data)
    runs = trained.load(data)[LINE.name]
    assert sorted(json.loads(key)[0] for key in runs) == ["test"] * 3 + ["tune"] * 2
    done = trained.finished(LINE, runs)
    assert len(done) == 3
    assert len({run["test"]["ndcg@20"] for run in done}) > 1  # seeds differ
    monkeypatch.setattr(trained, "train_recipe", None)  # a further run would fail
    monkeypatch.setattr(trained, "train_rounds", None)
    trained.measure(LINE, data)


def test_the_test_set_meets_a_model_of_all_pairs_and_the_chosen_epochs(data):
    from fastneg.recipes import recipe
    from fastneg.training.evaluation import evaluate
    from fastneg.training.rounds import build_model
    from fastneg.training.trainer import Trainer

    trained.measure(LINE, data)
    runs = trained.load(data)[LINE.name]
    best, _ = trained.choose(LINE, runs)
    epochs = runs[trained.run_key("tune", LINE, best, 0)]["epochs"]
    assert len(epochs) == 1
    train, test = trained.read("tiny")
    values = recipe(LINE.recipe).settings({**best, "epochs": epochs[0], "seed": 1})
    model = build_model(train, values)
    Trainer(model, train, values, stage="round-1").fit()  # whose order and negatives they have
    expected = evaluate(model.user_vectors(), model.item_vectors(), train=train, test=test, k=(20,))
    assert trained.finished(LINE, runs)[1]["test"]["ndcg@20"] == expected.metrics["ndcg@20"]


def test_two_processes_add_to_one_file(tmp_path):
    path = tmp_path / "runs.json"
    for number in range(3):  # each as a process that has read nothing of the others
        trained.store(path, f"line-{number % 2}", f"key-{number}", {"number": number})
    assert trained.load(path) == {
        "line-0": {"key-0": {"number": 0}, "key-2": {"number": 2}},
        "line-1": {"key-1": {"number": 1}},
    }


def test_grids_stand_one_after_the_other():
    line = Published("x", "tiny", "bpr", {"dim": 8}, ({"l2": [1, 2], "dim": [4]}, {"margin": [3]}))
    assert list(trained.trials(line)) == [
        {"dim": 4, "l2": 1},
        {"dim": 4, "l2": 2},
        {"dim": 8, "margin": 3},
    ]
    assert trained.grid_text(line) == "l2 1, 2 x dim 4; margin 3"
    assert trained.shown(line, {"dim": 8, "margin": 3}) == "dim 8, margin 3"


def test_validation_chooses_and_the_table_shows_means(monkeypatch):
    points = list(trained.trials(LINE))
    assert [point["learning_rate"] for point in points] == [0.05, 1e-6]
    runs = {}
    for point, validation, test in zip(points, (0.1, 0.2), (0.9, 0.3), strict=True):
        epochs = [int(10 * test)]
        runs[trained.run_key("tune", LINE, point, 0)] = {
            "validation": {"ndcg@20": validation},
            "epochs": epochs,
        }
        for seed in trained.SEEDS:
            runs[trained.run_key("test", LINE, {**point, "epochs": epochs}, seed)] = {
                "test": {"recall@20": test + seed / 100, "ndcg@20": test},
                "epochs": epochs,
                "seconds": 10.0 * seed,
                "threads": 1,
            }
    assert trained.choose(LINE, runs) == (points[1], 2)
    monkeypatch.setattr(quality, "LINES", (LINE, LINES[0]))
    text = quality.markdown({LINE.name: runs}, {"processor": "P"})
    row = next(line for line in text.splitlines() if line.startswith("| tiny-softmax"))
    assert row == (
        "| tiny-softmax | 0.3100 ± 0.0100 | 0.3000 ± 0.0000 | 0 / 0 | 1 / 1 | goal | none | "
        "3 | 10 | 1 | 2 |"
    )
    assert "learning_rate 1e-06: NDCG@20 0.2000 after 3 epochs (chosen)" in text
    for gains, reached in (
        ((-0.1, 0.14), "goal (+0.0 %)"),
        ((0.07, 0.14), "no (+0.0 %)"),
        ((-0.2, -0.1), "goal and aim (+0.0 %)"),
    ):
        other = replace(LINE, name="harder", goal=None, over="tiny-softmax", gains=gains)
        monkeypatch.setattr(quality, "LINES", (LINE, other))
        text_of_both = quality.markdown({LINE.name: runs, "harder": runs}, {})
        goal, aim = (f"{100 * gain:+.0f} % NDCG@20" for gain in gains)
        cells = f" | {goal} over tiny-softmax | {aim} | {reached} | none | 3 | 10 | 1 | 2 |"
        assert "| harder | 0.3100 ± 0.0100 | 0.3000 ± 0.0000" + cells in text_of_both
        unknown = quality.markdown({"harder": runs}, {})  # its base has no seeds yet
        assert f" over tiny-softmax | {aim} |  | none | 3 | 10 | 1 | 2 |" in unknown
    assert "learning_rate 0.05: NDCG@20 0.1000 after 9 epochs\n" in text
    assert "Not measured yet: gowalla-bpr." in text
    assert "- processor: P" in text
