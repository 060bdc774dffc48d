"""Towers with a history, layers of their own for items, and a learnt temperature."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.recipes import train_recipe
from fastneg.training.history import UserHistory
from fastneg.training.outputs import load_model
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower
from fastneg.training.trainer import Trainer
from tests.naive import towers as naive

HISTORIES = [[0, 2], [1], []]
HISTORY = UserHistory(np.array([0, 2, 3, 3]), np.array([0, 2, 1]))
BASE = Settings(dim=4, batch_size=64, epochs=3, patience=0, learning_rate=0.02, device="cpu", k=10)


def model_of(**arguments: Any) -> TwoTower:
    given = {"dim": 3, "history": "own", "user_history": HISTORY, **arguments}
    return TwoTower(3, 4, **given)


@pytest.mark.parametrize("history", ["own", "shared"])
def test_the_history_is_a_part_of_the_query_tower(history: str) -> None:
    model = model_of(history=history)
    users, targets = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[2, 1], [3, 3]])
    mean = model.user_tower.history
    ids, table = model.user_tower.id_embedding, model.item_tower.id_embedding
    assert mean is not None
    assert ids is not None
    assert table is not None
    assert (mean.table is table.weight) == (history == "shared")
    for given in (None, targets):
        wanted = naive.history_mean(
            HISTORIES, users.flatten().tolist(),
            None if given is None else given.flatten().tolist(), mean.table, mean.empty,
        ).view(2, 2, 3)  # fmt: skip
        found = model.embed_users(users, targets=given)
        torch.testing.assert_close(found, ids.weight[users] + wanted)
    # at evaluation nothing is left out
    torch.testing.assert_close(model.user_vectors(), model.embed_users(torch.arange(3)))


def test_a_shared_table_is_trained_by_both_towers_and_saved_once() -> None:
    model = model_of(history="shared", use_user_ids=False)
    names = [name for name, _ in model.named_parameters()]
    assert names == ["user_tower.history.empty", "item_tower.id_embedding.weight"]
    table = model.item_tower.id_embedding
    assert table is not None
    model.embed_users(torch.tensor([0])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [0, 2]
    twin = copy.deepcopy(model)
    twin.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert not torch.equal(twin.user_vectors(), model.user_vectors())
    mean = twin.user_tower.history
    assert mean is not None
    assert twin.item_tower.id_embedding is not None
    assert mean.table is twin.item_tower.id_embedding.weight


def test_rebuilding_and_layers_of_the_item_tower() -> None:
    model = model_of(hidden_layers=2, item_hidden_layers=0, dropout=0.1, use_user_ids=False)
    assert model.item_tower.hidden is None
    assert model.user_tower.hidden is not None
    widths = [one.out_features for one in model.user_tower.hidden if hasattr(one, "out_features")]
    assert widths == [12, 6, 3]
    config = json.loads(json.dumps(model.config()))
    again = TwoTower(**config, user_history=HISTORY)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.user_vectors(), model.user_vectors())
    assert not any(
        "items" in name or "indptr" in name for name in model.state_dict() if "user" in name
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"history": "none"}, "history = 'none' goes without a user_history"),
        ({"user_history": None}, "history = 'own' goes with a user_history"),
        ({"history": "mine"}, "history = 'mine' is not one of"),
        ({"history": "shared", "use_item_ids": False}, "neither ids nor features|shares"),
        ({"temperature_bounds": (0.1, 0.5)}, "temperature = 1.0 is not within"),
        ({"temperature_bounds": (0.0, 2.0)}, "two bounds above 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        model_of(**arguments)


# In training -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    return hold_out_validation(generated.interactions)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "in_batch"},
        {"loss": "bpr", "l2": 0.01},
        {"loss": "full_softmax"},
        {"loss": "nce", "shared": True, "num_negatives": 4},
        {"loss": "bpr", "negatives": ({"source": "dns", "candidates": 3},)},
    ],
)
def test_every_loss_leaves_the_target_out(data, changes) -> None:
    train, _ = data
    settings = BASE.replace(history="own", **changes)
    model = build_model(train, settings)
    trainer = Trainer(model, train, settings)
    batch = next(iter(trainer.batches))
    mean = model.user_tower.history
    assert mean is not None
    calls: list[Any] = []
    mean.register_forward_hook(lambda _, given, __: calls.append(given))
    trainer.objective.loss(model, batch)
    assert len(calls) == (2 if "negatives" in changes else 1)  # DNS scores its candidates first
    for users, targets in calls:
        assert torch.equal(users, batch.users)
        assert torch.equal(targets, batch.items)
    calls.clear()
    model.user_vectors()
    assert [targets for _, targets in calls] == [None]


def test_a_saved_model_has_its_history(data, tmp_path: Path) -> None:
    train, validation = data
    settings = {**BASE.to_dict(), "history": "shared", "history_length": 5, "epochs": 1,
                "learn_temperature": True}  # fmt: skip
    result = train_recipe(train, validation, recipe="bpr", settings=settings, out=tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again.user_vectors(), result.model.user_vectors())
    assert again.temperature == result.model.temperature != 1.0
    mean = again.user_tower.history
    assert mean is not None
    assert int(mean.indptr.diff().max()) == 5
    plain = {**settings, "history": "none", "history_length": None}
    train_recipe(train, validation, recipe="bpr", settings=plain, out=tmp_path, overwrite=True)
    assert load_model(tmp_path).user_tower.history is None
    (tmp_path / "user_history.npz").write_bytes(b"x")
    with pytest.raises(FastnegError, match="is damaged, or another model's"):
        load_model(tmp_path)


LOSSES: dict[str, dict[str, Any]] = {
    "in_batch": {"loss": "in_batch"},
    "mixed": {"loss": "mixed", "num_uniform": 16},
    "per row": {"loss": "sampled_softmax", "num_negatives": 3},
    "bpr with l2": {"loss": "bpr", "l2": 0.1},
    "hinge": {"loss": "hinge", "shared": True, "num_negatives": 8},
    "nce": {"loss": "nce", "num_negatives": 4},
    "full": {"loss": "full_softmax"},
    "list": {
        "loss": "sampled_softmax",
        "negatives": ({"source": "in-batch"}, {"source": "sampled", "num_negatives": 3}),
    },
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_learnt_temperature_divides_as_a_fixed_one(data, name, similarity) -> None:
    train, _ = data
    settings = BASE.replace(temperature=0.3, similarity=similarity, **LOSSES[name])

    def loss_and_model(settings: Settings, temperature: float) -> tuple[torch.Tensor, TwoTower]:
        settings = settings.replace(temperature=temperature)
        model = build_model(train, settings)
        trainer = Trainer(model, train, settings)
        batch = next(iter(trainer.batches))
        return trainer.objective.loss(model, batch), model

    fixed, plain = loss_and_model(settings, 0.3)
    learnt, model = loss_and_model(settings.replace(learn_temperature=True), 0.3)
    torch.testing.assert_close(learnt, fixed)
    learnt.backward()
    fixed.backward()
    for (_, one), (_, other) in zip(
        plain.named_parameters(),
        [pair for pair in model.named_parameters() if pair[0] != "log_temperature"],
        strict=True,
    ):
        torch.testing.assert_close(one.grad, other.grad)
    step = 1e-3
    high, _ = loss_and_model(settings, 0.3 * float(np.exp(step)))
    low, _ = loss_and_model(settings, 0.3 * float(np.exp(-step)))
    assert model.log_temperature is not None
    assert model.log_temperature.grad is not None
    slope = float((high - low).detach()) / (2 * step)
    assert float(model.log_temperature.grad) == pytest.approx(slope, rel=0.02, abs=2e-3)


def test_the_temperature_stays_within_its_bounds_and_is_logged(data) -> None:
    train, validation = data
    settings = BASE.replace(
        loss="in_batch", similarity="cosine", temperature=0.5, learn_temperature=True,
        temperature_bounds=(0.45, 0.55), learning_rate=0.05,
    )  # fmt: skip
    model = build_model(train, settings)
    result = Trainer(model, train, settings, validation=validation).fit()
    logged = [line["temperature"] for line in result.history]
    assert len(logged) == 3
    assert all(0.45 <= one <= 0.55 + 1e-6 for one in logged)
    assert logged[-1] == pytest.approx(0.55)  # vectors that know nothing yet: a flat softmax
    assert 0.45 <= model.temperature <= 0.55 + 1e-6
    free = settings.replace(temperature_bounds=(0.01, 10.0))
    model = build_model(train, free)
    assert Trainer(model, train, free).fit().history[-1]["temperature"] > 0.56


def test_a_temperature_beyond_a_bound_is_put_back() -> None:
    model = model_of(temperature_bounds=(0.5, 2.0))
    assert model.log_temperature is not None
    vectors = torch.ones(2, 3)
    for value, bound in ((9.0, 2.0), (-9.0, 0.5)):
        model.log_temperature.data.fill_(value)
        assert model.temperature == pytest.approx(bound)
        torch.testing.assert_close(model.over_temperature(vectors), vectors / bound)
        assert float(model.log_temperature.detach()) == pytest.approx(np.log(bound))


@pytest.mark.parametrize(
    "changes", [{"history": "shared"}, {"history": "own", "history_length": 4}]
)
def test_resumed_with_a_history_and_a_learnt_temperature(data, tmp_path, changes) -> None:
    train, validation = data
    settings = BASE.replace(
        loss="in_batch", learn_temperature=True, hidden_layers=1, dropout=0.2,
        checkpoint_every=5, **changes,
    )  # fmt: skip

    def run(stop: int | None, **arguments: Any):
        def on_step(step: int) -> None:
            if step == stop:
                raise KeyError

        model = build_model(train, settings)
        trainer = Trainer(model, train, settings, validation=validation, on_step=on_step,
                          checkpoint=tmp_path / "state.safetensors")  # fmt: skip
        return model, trainer.fit(**arguments)

    expected, result = run(None)
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(KeyError):
        run(result.steps // 2)
    resumed, again = run(None, resume=True)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [x["temperature"] for x in again.history] == [x["temperature"] for x in result.history]
