"""Checkpoints that were damaged, or changed by someone who computes checksums: refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fastneg.errors import CheckpointError, FastnegError, FileFormatError
from fastneg.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tests.training.test_trainer import (
    BASE,
    LOSSES,
    assert_same_weights,
    data,
    trained,
    weights,
)

__all__ = ["data"]  # a fixture

SETTINGS = BASE.replace(epochs=3, checkpoint_every=1, average_decay=0.5, **LOSSES["bpr"])


class Stopped(Exception):
    pass


def stop_at(step: int) -> Callable[[int], None]:
    def stop(now: int) -> None:
        if now == step:
            raise Stopped

    return stop


@pytest.fixture(scope="module")
def saved(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that was stopped in its second epoch."""
    path = tmp_path_factory.mktemp("saved") / "state.safetensors"
    _, trainer = trained(data, SETTINGS, checkpoint=path, on_step=stop_at(20))
    with pytest.raises(Stopped):
        trainer.fit()
    assert load_checkpoint(path).facts["epoch"] == 1
    return path


def resume(data: Any, path: Path) -> Any:
    model, trainer = trained(data, SETTINGS, checkpoint=path)
    return model, trainer.fit(resume=True)


def test_one_flipped_bit_anywhere_is_seen(data: Any, saved: Path, tmp_path: Path) -> None:
    content, path = saved.read_bytes(), tmp_path / "state.safetensors"
    for place in [*range(0, 2000, 97), *range(2000, len(content), len(content) // 40)]:
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(FastnegError):  # a version to come, where the bit was the version's
            resume(data, path)
    path.write_bytes(content)
    model, _ = resume(data, path)
    whole, trainer = trained(data, SETTINGS)
    trainer.fit()
    assert_same_weights(weights(model), weights(whole))


def test_a_checkpoint_without_its_checksum_is_refused(
    data: Any, saved: Path, tmp_path: Path
) -> None:
    read = load_checkpoint(saved)
    facts = {"version": 2, **read.facts}
    for header in ({}, {"sha256": "0" * 64}):
        path = tmp_path / "state.safetensors"
        save_file(read.tensors, path, metadata={"fastneg": json.dumps(facts), **header})
        with pytest.raises(FileFormatError, match="is damaged: its checksum is not that"):
            resume(data, path)
    facts["version"] = 1
    save_file(read.tensors, path, metadata={"fastneg": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="checkpoint version 1; this fastneg reads 2"):
        resume(data, path)


def last_step(tensors: dict[str, Any]) -> str:
    return next(name for name in tensors if name.endswith("last_step"))


def _last(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any, Any], None]:
    def forge(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        tensors[last_step(tensors)] = change(tensors[last_step(tensors)])

    return forge


def _beside(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Any, Any], None]:
    """Change, or (None) remove, what stands beside the steps of a table."""

    def forge(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        key = last_step(tensors).replace("last_step", name)
        made = change(tensors.pop(key))
        if made is not None:
            tensors[key] = made

    return forge


def _tensors(start: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Any, Any], None]:
    def forge(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        for key in [key for key in tensors if key.startswith(start)]:
            made = change(tensors.pop(key))
            if made is not None:
                tensors[key] = made

    return forge


def _add(key: str) -> Callable[[Any, Any], None]:
    return lambda tensors, facts: tensors.__setitem__(key, torch.zeros(7))


def _fact(*keys: Any, value: Any) -> Callable[[Any, Any], None]:
    def forge(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        at: Any = facts
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return forge


def _without(name: str) -> Callable[[Any, Any], None]:
    return lambda tensors, facts: facts.pop(name)


FORGED: dict[str, Callable[[Any, Any], Any]] = {
    "steps to come": _last(lambda last: last + 1000),
    "one step to come": _last(lambda last: last + 1),
    "steps far away": _last(lambda last: torch.full_like(last, 2**61)),
    "steps below 0": _last(lambda last: torch.full_like(last, -1)),
    "steps of few rows": _last(lambda last: last[:5].clone()),
    "steps of more rows": _last(lambda last: torch.cat([last, last])),
    "steps as floats": _last(lambda last: last.float()),
    "steps as int32": _last(lambda last: last.int()),
    "one step for all": _last(lambda last: torch.tensor(3)),
    "a step that is infinite": _beside("step", lambda step: torch.tensor(float("inf"))),
    "a step that is no number": _beside("step", lambda step: torch.tensor(float("nan"))),
    "a step below 0": _beside("step", lambda step: torch.tensor(-5.0)),
    "a step of 0": _beside("step", lambda step: torch.tensor(0.0)),
    "half a step": _beside("step", lambda step: torch.tensor(7.5)),
    "two steps": _beside("step", lambda step: torch.tensor([1.0, 2.0])),
    "no step": _beside("step", lambda step: None),
    "another step than the other table": _beside("step", lambda step: step + 1),
    "fewer moments": _beside("exp_avg", lambda moment: moment[:3].clone()),
    "narrow moments": _beside("exp_avg", lambda moment: moment[:, :2].clone()),
    "moments of float64": _beside("exp_avg", lambda moment: moment.double()),
    "no first moment": _beside("exp_avg", lambda moment: None),
    "no second moment": _beside("exp_avg_sq", lambda moment: None),
    "an optimizer of nothing": _tensors("optimizer/", lambda one: None),
    "a parameter of no number": _add("optimizer/x/exp_avg"),
    "a parameter too many": _add("optimizer/99/exp_avg"),
    "a parameter of no name": _add("optimizer/x"),
    "a short random state": _tensors("rng/", lambda one: one[:10].clone()),
    "no random state": _tensors("rng/", lambda one: None),
    "a random state of floats": _tensors("rng/", lambda one: one.float()),
    "sums of another shape": _tensors("sums/loss", lambda one: torch.zeros(7)),
    "sums of another dtype": _tensors("sums/loss", lambda one: one.float()),
    "no sums": _tensors("sums/", lambda one: None),
    "a sum too many": _add("sums/more"),
    "a memory too many": _add("memory/more"),
    "no memory": _tensors("memory/", lambda one: None),
    "short weights": _tensors("model/", lambda one: one[:2].clone()),
    "weights of integers": _tensors("model/", lambda one: one.long()),
    "no weights": _tensors("model/", lambda one: None),
    "short best weights": _tensors("best/", lambda one: one[:2].clone()),
    "some best weights": _tensors("best/user", lambda one: None),
    "no identity": _without("identity"),
    "an identity of no kind": _fact("identity", value=[1]),
    "settings of no kind": _fact("identity", "settings", value=[1]),
    "no optimizer": _without("optimizer"),
    "groups of no kind": _fact("optimizer", "groups", value=3),
    "a rate of no kind": _fact("optimizer", "groups", 0, "lr", value="a"),
    "another rate": _fact("optimizer", "groups", 0, "lr", value=1e300),
    "half the betas": _fact("optimizer", "groups", 0, "betas", value=[0.5]),
    "a parameter twice": _fact("optimizer", "groups", 0, "params", value=[0, 0]),
    "parameters exchanged": _fact("optimizer", "groups", 0, "params", value=[1, 0]),
    "values of no parameter": _fact("optimizer", "values", value={"a": {"b": 1}}),
    "values of no kind": _fact("optimizer", "values", value=[3]),
    "no batches": _without("batches"),
    "a batch far away": _fact("batches", "next_batch", value=10**9),
    "a batch of no kind": _fact("batches", "next_batch", value="1"),
    "a batch below 0": _fact("batches", "next_batch", value=-1),
    "an epoch of no size": _fact("batches", "epoch", value=2**70),
    "an epoch below 0": _fact("batches", "epoch", value=-1),
    "an epoch of no kind": _fact("epoch", value="a"),
    "epochs to come": _fact("epoch", value=4),
    "the next batch below 0": _fact("next_batch", value=-3),
    "a true step": _fact("step", value=True),
    "a history of numbers": _fact("history", value=[1, 2]),
    "a history of text": _fact("history", value="zz"),
    "a history of no metrics": _fact("history", 0, "validation", value=3),
    "seconds of no kind": _fact("seconds", value="x"),
    "a best evaluation of no kind": _fact("best_evaluation", value=3),
    "a best evaluation without counts": _fact("best_evaluation", value={"metrics": {}}),
    "lists that are renewed": _fact("refresh", value={"pending_step": 3}),
    "a refresh of no kind": _fact("refresh", value=None),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_state_is_refused(name: str, data: Any, saved: Path, tmp_path: Path) -> None:
    read = load_checkpoint(saved)
    tensors, facts = dict(read.tensors), json.loads(json.dumps(read.facts))
    FORGED[name](tensors, facts)
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, Checkpoint(tensors, facts))
    with pytest.raises((FileFormatError, CheckpointError)) as caught:
        resume(data, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("loss", ["bpr", "in_batch", "mixed"])
@pytest.mark.parametrize(
    "changes", [{}, {"average_decay": 0.5}, {"hidden_layers": 1, "dropout": 0.3}]
)
def test_a_finished_run_is_trained_on_as_if_it_had_never_ended(
    data: Any, loss: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = BASE.replace(epochs=4, patience=0, **changes, **LOSSES[loss])
    whole, trainer = trained(data, settings)
    expected = trainer.fit()
    path = tmp_path / "state.safetensors"
    for epochs in (2, 2, 3):
        _, trainer = trained(data, settings.replace(epochs=epochs), checkpoint=path)
        assert trainer.fit(resume=True).epochs_run == epochs
    model, trainer = trained(data, settings, checkpoint=path)
    result = trainer.fit(resume=True)
    assert_same_weights(weights(model), weights(whole))
    assert (result.epoch, result.metrics) == (expected.epoch, expected.metrics)


def test_more_patience_trains_on(data: Any, tmp_path: Path) -> None:
    settings = BASE.replace(epochs=30, patience=1, learning_rate=0.3, **LOSSES["bpr"])
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, settings, checkpoint=path)
    first = trainer.fit()
    assert first.epochs_run < 30
    _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(1))
    assert trainer.fit(resume=True).epochs_run == first.epochs_run
    _, trainer = trained(data, settings.replace(patience=0), checkpoint=path)
    assert trainer.fit(resume=True).epochs_run == 30
