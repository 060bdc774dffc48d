"""The comparison of defaults: a thinned set, the same each time, and a page of what is stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse

from bench import defaults
from fastneg import Interactions


def matrices(seed: int = 0):
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, 121)
    cells = rng.random((200, 120)) < np.minimum(1, 6 * popularity)
    train = cells & (rng.random(cells.shape) < 0.8)
    return scipy.sparse.csr_matrix(train, dtype=float), scipy.sparse.csr_matrix(cells & ~train)


def test_the_thinned_set_keeps_five_to_ten_rows_of_popular_items() -> None:
    train, test = matrices()
    made, held = defaults.thinned(train, test, num_users=60, num_items=50)
    assert made.shape == held.shape == (60, 50)
    rows = np.diff(made.indptr)
    assert (rows.min(), rows.max()) == (5, 10)
    assert (made.data == 1).all()
    again, _ = defaults.thinned(train, test, num_users=60, num_items=50)
    assert (made != again).nnz == 0
    counts = np.asarray(train.sum(0)).ravel()
    popular = set(np.argsort(-counts, kind="stable")[:50].tolist())
    whole = train[:, sorted(popular)]
    matched = 0
    for user in range(60):  # each row is a part of some user's, test rows are that user's
        mine = set(made[user].indices.tolist())
        owners = [u for u in range(200) if mine <= set(whole[u].indices.tolist())]
        tests = [set(test[:, sorted(popular)][u].indices.tolist()) for u in owners]
        matched += set(held[user].indices.tolist()) in tests
    assert matched == 60


def run(ndcg: float, test: float, batch: int = 256) -> dict:
    metrics = {"recall@20": 2 * ndcg, "ndcg@20": ndcg}
    return {"validation": metrics, "test": {"recall@20": 2 * test, "ndcg@20": test},
            "epochs": [7], "batch_size": batch, "processor_seconds": 3.0}  # fmt: skip


def key(data: str, recipe: str, settings: dict, seed: int = 0) -> str:
    return json.dumps([data, recipe, settings, seed], sort_keys=True)


def test_the_page_compares_common_seeds_and_chooses_on_validation() -> None:
    points = defaults.TRIALS["bpr"]
    tune = {
        key("gowalla-sparse", "bpr", dict(one)): {**run(0.1 + n / 100, 0), "test": {}}
        for n, one in enumerate(points)
    }
    stored = {
        "before": {key("movielens", "bpr", {}, seed): run(0.1, 0.2, 2048) for seed in (0, 1)},
        "now": {
            key("movielens", "bpr", {}): run(0.2, 0.25, 512),
            key("gowalla-sparse", "bpr", {}): run(0.18, 0.22, 512),
        },
        "tune": tune,
        "best": {key("gowalla-sparse", "bpr", dict(points[-1])): run(0.19, 0.21)},
    }
    text = defaults.markdown(stored, {"processor": "P"})
    assert (
        "| movielens | bpr | 1 | 0.1000 → 0.2000 | 0.4000 → 0.5000 | 0.2000 → 0.2500 | +25.0 % | "
        "7 → 7 | 2048 → 512 | 3.0 → 3.0 |"
    ) in text
    two = {**stored, "now": {**stored["now"], key("movielens", "bpr", {}, 1): run(0.2, 0.3)}}
    assert "0.2000 → 0.2750 | +37.5 ± 12.5 % |" in defaults.markdown(two, {})  # +25 and +50 %
    assert "No recipe has a lower test NDCG@20 than before." in text
    assert "set bpr as shipped reach at least 95 % of what ten tuning runs" in text
    last = ", ".join(f"{name} {value}" for name, value in points[-1].items())
    assert f"| bpr | {last} | 0.1900 | 0.1800 | 95 % | 0.2100 | 0.2200 | 105 % |" in text
    assert text.count("validation NDCG@20 0.1") == len(points)
    assert "Not measured: movielens: full-softmax, mixed" in text
    stored["before"][key("movielens", "bpr", {})] = run(0.1, 0.5)
    assert "lower than before: bpr on movielens (-50.0 %)" in defaults.markdown(stored, {})
    del stored["tune"][key("gowalla-sparse", "bpr", dict(points[0]))]
    assert "tuning runs" not in defaults.markdown(stored, {})


def test_every_recipe_has_ten_points_that_are_settings() -> None:
    from fastneg.recipes import recipe

    for name, points in defaults.TRIALS.items():
        assert len(points) == len({json.dumps(one, sort_keys=True) for one in points}) == 10
        for one in points:
            recipe(name).settings(one)
    for name in defaults.RECIPES:
        recipe(name).settings()


def test_what_is_stored_is_not_made_again(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation(40 * 50)[:600]
    parts = [
        Interactions.from_codes(some // 50, some % 50, num_users=40, num_items=50)
        for some in (cells[:500], cells[500:])
    ]
    monkeypatch.setattr(defaults, "read", lambda data: tuple(parts))
    path = tmp_path / "defaults.json"
    settings = {"epochs": 2, "dim": 4}
    defaults.make(path, "now", "movielens", "bpr", settings, 0)
    found = json.loads(path.read_text())["now"][key("movielens", "bpr", settings)]
    assert found["batch_size"] == 256
    assert set(found["test"]) == {"recall@20", "ndcg@20"}
    defaults.make(path, "tune", "movielens", "bpr", settings, 0)
    tuned = json.loads(path.read_text())["tune"][key("movielens", "bpr", settings)]
    assert tuned["test"] == {}  # unseen while settings are chosen
    assert tuned["validation"] == found["validation"]
    monkeypatch.setattr(defaults, "train_recipe", None)
    defaults.make(path, "now", "movielens", "bpr", settings, 0)
    with pytest.raises(TypeError):
        defaults.make(path, "now", "movielens", "bpr", settings, 1)
