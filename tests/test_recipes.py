"""Recipes: each learns on data of known truth; what is written can be read; nothing leaks."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fastneg.data import splits
from fastneg.data.features import FeatureTable
from fastneg.data.splits import hold_out_validation, split_last_fraction
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.recipes import Recipe, recipe, recipes, train_recipe
from fastneg.training.evaluation import evaluate, evaluate_scores, most_popular_scores
from fastneg.training.impressions import Impressions
from fastneg.training.outputs import load_config, load_model
from fastneg.training.settings import Settings

# a few seconds each: small batches, so that a small data set gives enough steps
SMALL = {
    "dim": 8,
    "batch_size": 128,
    "learning_rate": 0.03,
    "epochs": 12,
    "patience": 3,
    "device": "cpu",
    "k": 10,
}
QUICK = {**SMALL, "epochs": 1}


def small(name: str, **changes) -> dict:
    scaled = {"num_uniform": 64} if recipe(name).changes.get("num_uniform") else {}
    if recipe(name).changes.get("shared"):
        scaled = {"num_negatives": 64}
    if name == "gbce":  # of 150 items: a sampling rate of 5 %
        scaled = {"num_negatives": 8}
    if name == "word2vec":  # its first epochs, of few steps here, are worse than popularity
        scaled = {"subsample_positives": 1e-2, "epochs": 25, "patience": 0}
    if "negatives" in recipe(name).changes:  # 32 candidates of 150 items are the hardest four
        fewer = {"dns": {"candidates": 4}, "queue": {"size": 256, "warm_up": 20}}
        if name == "dns-m-n":
            fewer["dns"] = {"candidates": 8, "top": 2}
        fewer["reinforced"] = {"candidates": 8}
        if name in ("taobao", "facebook-ebr"):
            fewer["sampled"] = {"num_negatives": 64}
        scaled = {
            "negatives": [
                {**one, **fewer.get(one["source"], {})} for one in recipe(name).changes["negatives"]
            ]
        }
    if recipe(name).changes.get("rounds", 1) > 1:
        scaled |= {"window": (11, 40), "num_mined": 10}
    return {**SMALL, **scaled, **changes}


@pytest.fixture(scope="module")
def dataset():
    return generate_dataset(200, 150, positives_per_user=24, dim=4, skew=0.6, seed=2)


@pytest.fixture(scope="module")
def split(dataset):
    cut = split_last_fraction(dataset.interactions)
    return cut.train, cut.test


def exposure(dataset, train, share: float = 0.0) -> Impressions:
    """Four items shown with each positive: popular ones, with a ``share`` of them to taste."""
    rng = np.random.default_rng(0)
    users, positives = train.row_users, train.row_items
    popular = 0.5 * np.log(train.item_user_counts + 1.0)
    tasteful = rng.random(len(users)) < share
    logits = np.where(tasteful[:, None], dataset.truth.affinity(users), popular)
    noise = rng.gumbel(size=logits.shape)
    noise[np.arange(len(users)), positives] = -np.inf
    shown = np.argsort(-(logits + noise), axis=1)[:, :4]
    return Impressions(np.repeat(users, 4), np.repeat(positives, 4), shown.ravel())


@pytest.fixture(scope="module")
def beside(dataset, split):
    """What a recipe needs besides interactions, by its name."""
    train, _ = split
    rng = np.random.default_rng(1)
    quadrant = (dataset.truth.item_factors[:, :2] > 0) @ np.array([1, 2])
    table = {"id": train.item_ids, "market": [f"m{one}" for one in quadrant]}
    market = FeatureTable.from_table(table, ids=train.item_ids)
    users = np.repeat(np.arange(200), 10)
    disliked = np.argsort(dataset.truth.affinity(np.arange(200)), axis=1)[:, :75]
    items = np.take_along_axis(disliked, rng.integers(0, 75, (200, 10)), 1).ravel()
    rejected = Interactions.from_pairs(
        train.decode_users(users),
        train.decode_items(items),
        user_ids=train.user_ids,
        item_ids=train.item_ids,
    )
    return {
        "airbnb": {"item_features": market, "negatives": rejected},
        "impressions-only": {"impressions": exposure(dataset, train)},
        "reinforced": {"negatives": rejected},
    }


@pytest.mark.parametrize("name", recipes())
def test_each_recipe_beats_the_most_popular(split, beside, name):
    train, test = split
    result = train_recipe(
        train, None, test, recipe=name, settings=small(name), seed=1, **beside.get(name, {})
    )
    popular = evaluate_scores(most_popular_scores(train), train=train, test=test, k=(10,))
    assert result.metrics["test"]["ndcg@10"] > 1.3 * popular.metrics["ndcg@10"]
    assert result.metrics["test"]["recall@10"] > 1.3 * popular.metrics["recall@10"]


def test_impressions_alone_teach_less_than_the_catalog(dataset, split):
    """What is shown is to the user's taste: told apart from that alone, nothing else is learnt."""
    train, test = split
    shown = exposure(dataset, train, share=0.8)
    found = {}
    for name, more in (("impressions-only", {"impressions": shown}), ("ncf-loop", {})):
        result = train_recipe(train, None, test, recipe=name, settings=small(name), seed=1, **more)
        found[name] = result.metrics["test"]["ndcg@10"]
    assert found["impressions-only"] < 0.8 * found["ncf-loop"]


def test_what_a_recipe_needs_is_said_at_once(split, beside, tmp_path):
    train, _ = split
    message = "--items FILE.*'explicit' draws from rows with weight 0 or less.*--negatives FILE"
    with pytest.raises(FastnegError, match=message):
        train_recipe(train, recipe="airbnb", out=tmp_path / "out")
    with pytest.raises(FastnegError, match="there are no impressions"):
        train_recipe(train, recipe="impressions-only", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FastnegError, match="there are impressions, and no source takes them"):
        train_recipe(train, recipe="bpr", **beside["impressions-only"])


def test_what_is_written(dataset, split, tmp_path):
    train, test = split
    out = tmp_path / "run"
    result = train_recipe(
        train,
        None,
        test,
        recipe="mixed-negative-sampling",
        settings=small("mixed-negative-sampling", epochs=3, hidden_layers=1),
        user_features=dataset.user_features,
        item_features=dataset.item_features,
        seed=4,
        out=out,
    )
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.toml",
        "item_vectors.npy",
        "user_vectors.npy",
        "users.parquet",
        "items.parquet",
        "user_features.npz",
        "item_features.npz",
        "metrics.json",
        "metrics.jsonl",
        "checkpoints",
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result.metrics))
    for part in ("validation", "test"):
        assert {"recall@10", "ndcg@10", "mrr", "coverage@10"} <= set(metrics[part])
    assert metrics["seconds"] > 0
    assert 1 <= metrics["epoch"] <= 3
    assert metrics["settings"]["num_uniform"] == 64
    assert metrics["settings"]["seed"] == metrics["seed"] == 4
    assert metrics["counts"]["items"] == 150
    assert metrics["refit"] is False
    assert metrics["reproducible"] is True

    config = load_config(out)
    assert config["recipe"] == "mixed-negative-sampling"
    assert Settings.from_dict(config["settings"]) == result.settings
    assert tomllib.loads((out / "config.toml").read_text()) == config

    items = np.load(out / "item_vectors.npy", allow_pickle=False)
    users = np.load(out / "user_vectors.npy", allow_pickle=False)
    assert (items.shape, users.shape) == ((150, 8), (200, 8))
    table = pq.read_table(out / "items.parquet")
    assert table.column("code").to_pylist() == list(range(150))
    assert table.column("id").to_pylist() == train.item_ids.tolist()

    model = load_model(out)
    assert not model.training
    np.testing.assert_array_equal(model.item_vectors().numpy(), items)
    np.testing.assert_array_equal(model.user_vectors().numpy(), users)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_string_ids_are_written(tmp_path):
    rng = np.random.default_rng(0)
    users = [f"u{n}" for n in rng.integers(0, 20, 300)]
    items = [f"i{n}" for n in rng.integers(0, 30, 300)]
    train = Interactions.from_pairs(users, items)
    train_recipe(train, recipe="bpr", settings=QUICK, out=tmp_path)
    ids = pq.read_table(tmp_path / "users.parquet").column("id").to_pylist()
    assert ids == train.user_ids.tolist()


def test_test_metrics_are_those_of_the_written_vectors(split, tmp_path):
    train, test = split
    result = train_recipe(train, None, test, recipe="bpr", settings=QUICK, out=tmp_path, seed=5)
    kept, validation = hold_out_validation(train, seed=5)
    again = evaluate(
        np.load(tmp_path / "user_vectors.npy"),
        np.load(tmp_path / "item_vectors.npy"),
        train=kept,
        validation=validation,
        test=test,
        k=(10,),
    )
    assert result.metrics["test"] == again.metrics


def test_choices_do_not_depend_on_the_test_set(split):
    train, test = split
    half = test.select(np.arange(0, test.num_rows, 2))
    settings = small("bpr", epochs=4)
    whole = train_recipe(train, None, test, recipe="bpr", settings=settings)
    part = train_recipe(train, None, half, recipe="bpr", settings=settings)
    assert whole.metrics["validation"] == part.metrics["validation"]
    assert whole.metrics["epoch"] == part.metrics["epoch"]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, part.model.state_dict()[name])


def test_refit_trains_on_everything_for_the_chosen_epochs(split, tmp_path):
    train, test = split
    result = train_recipe(
        train, None, test, recipe="bpr", settings=small("bpr"), refit=True, out=tmp_path
    )
    plain = train_recipe(train, None, test, recipe="bpr", settings=small("bpr"))
    assert result.metrics["refit"] is True
    assert result.metrics["epoch"] == plain.metrics["epoch"]
    assert result.metrics["validation"] == plain.metrics["validation"]
    assert result.metrics["counts"]["train_positives"] == train.num_positives
    assert plain.metrics["counts"]["train_positives"] < train.num_positives
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    refitted = [line for line in lines if line["stage"] == "refit-1"]
    assert len(refitted) == result.metrics["epoch"]
    assert all("validation" not in line for line in refitted)


def test_refit_on_validation_of_codes_trains_on_its_users_and_items(split):
    held = hold_out_validation(split[0])
    ids = {"user_ids": np.arange(1, 201), "item_ids": np.arange(1, 151)}  # codes from 1 on
    train = Interactions.from_pairs(held[0].row_users + 1, held[0].row_items + 1, **ids)
    rows = held[1].row_users, held[1].row_items
    by_codes = Interactions.from_codes(*rows, num_users=200, num_items=150)
    by_ids = Interactions.from_codes(*rows, like=train)
    settings = {**QUICK, "eval_users": 200}
    found = [
        train_recipe(train, one, recipe="bpr", settings=settings, refit=True).model
        for one in (by_codes, by_ids)
    ]
    for name, tensor in found[0].state_dict().items():
        assert torch.equal(tensor, found[1].state_dict()[name])


def test_refit_of_rounds_stops_at_the_best_round(split):
    train, test = split
    settings = small("facebook-ebr", epochs=2, patience=0)
    result = train_recipe(train, None, test, recipe="facebook-ebr", settings=settings, refit=True)
    assert len(result.metrics["rounds"]) == 2
    assert result.metrics["round"] in (1, 2)


class Stopped(Exception):
    pass


# the step at which a run ends: of the first epochs, of the second round, or of what refit trains
INTERRUPTED = {
    **dict.fromkeys(recipes(), 40),
    "word2vec": 30,
    "cross-batch": 50,
    **dict.fromkeys(("facebook-ebr", "linkedin-jobs"), 70),
    **dict.fromkeys(("gbce", "full-softmax", "dns-m-n", "airbnb", "sampled-softmax"), 80),
}


@pytest.mark.parametrize(("name", "when"), [*INTERRUPTED.items(), ("bpr", 80)])
def test_interrupted_and_resumed_is_the_same(split, beside, tmp_path, name, when):
    train, test = split
    settings = small(name, epochs=2, patience=0, checkpoint_every=7)
    more = beside.get(name, {})
    expected = train_recipe(train, None, test, recipe=name, settings=settings, refit=True, **more)
    steps = 0

    def stop(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == when:
            raise Stopped

    with pytest.raises(Stopped):
        train_recipe(
            train,
            None,
            test,
            recipe=name,
            settings=settings,
            refit=True,
            out=tmp_path,
            on_step=stop,
            **more,
        )
    resumed = train_recipe(
        train, None, test, recipe=name, settings=settings, refit=True, out=tmp_path, resume=True,
        **more,
    )  # fmt: skip
    assert resumed.metrics["test"] == expected.metrics["test"]
    for key, tensor in expected.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[key])
    for key, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, expected.model.state_dict()[key])


def test_own_recipes_and_given_validation(split):
    train, test = split
    own = Recipe("mine", "an example", "nobody", {"loss": "bce", "num_negatives": 2})
    kept, validation = hold_out_validation(train)
    result = train_recipe(kept, validation, test, recipe=own, settings=QUICK)
    assert result.metrics["recipe"] == "mine"
    assert result.settings.loss == "bce"
    assert result.folder is None


def test_bad_inputs(split, tmp_path):
    train, _ = split
    other = Interactions.from_codes([0, 1], [0, 1])
    with pytest.raises(FastnegError, match="test has 2 users and 2 items, train has 200 and 150"):
        train_recipe(train, None, other, recipe="bpr")
    with pytest.raises(FastnegError, match="no user has 5 items or more"):
        train_recipe(other, recipe="bpr")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FastnegError, match=r"output folder .*file cannot be written"):
        train_recipe(train, recipe="bpr", out=blocked)
    with pytest.raises(FileFormatError, match="there is no such checkpoint"):
        load_model(tmp_path)
    with pytest.raises(FileFormatError, match="there is no such file"):
        load_config(tmp_path)
    train_recipe(train, recipe="bpr", settings=QUICK, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="was made with seed = 0, not 1"):
        train_recipe(train, recipe="bpr", settings=QUICK, seed=1, out=tmp_path / "run", resume=True)
    (tmp_path / "run" / "config.toml").write_text("= broken")
    with pytest.raises(FileFormatError, match="cannot be read as TOML"):
        load_config(tmp_path / "run")


def test_what_is_held_out_is_not_the_training_seed_s(monkeypatch):
    """Without times: another seed trains anew and validates on the same pairs."""
    known = generate_dataset(60, 80, positives_per_user=16, seed=1).interactions
    plain = Interactions.from_codes(known.row_users, known.row_items, num_users=60, num_items=80)
    assert plain.row_times is None
    held = []

    def spy(train, **options):
        parts = hold_out_validation(train, **options)
        held.append(parts[1].positive_items.tolist())
        return parts

    monkeypatch.setattr(splits, "hold_out_validation", spy)
    changes = ({"seed": 1}, {"seed": 2}, {"seed": 1, "split_seed": 5})
    runs = [train_recipe(plain, recipe="bpr", settings=QUICK, **change) for change in changes]
    assert held[0] == held[1] != held[2]
    assert held[2] == hold_out_validation(plain, seed=5)[1].positive_items.tolist()
    assert runs[0].metrics["validation"] != runs[1].metrics["validation"]
    assert [run.settings.split_seed for run in runs] == [0, 0, 5]
