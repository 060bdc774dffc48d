"""How far a stage of training is: everything that a killed run needs to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastneg.checks import shown
from fastneg.errors import CheckpointError, FastnegError, FileFormatError
from fastneg.samplers.frequency import FrequencyEstimator
from fastneg.training.batches import NegativeBatches
from fastneg.training.checkpoints import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)

_NAMES = {
    "data": "training data",
    "validation": "validation data",
    "hard": "mined negatives",
    "sources": "item groups or impressions",
    "ranks": "numbers of ranks, which gather_negatives = false depends on",
}
_FACTS = (
    "epoch",
    "step",
    "next_batch",
    "best_epoch",
    "best_evaluation",
    "history",
    "seconds",
    "refresh",
)
_ARRAYS = ("last", "gaps")  # of the frequencies' estimator; the rest of its state is facts


@dataclass
class TrainingState:
    """Where a stage stands, beside its weights, its optimizer and torch's random state.

    Attributes:
        sums: running sums of the epoch under way, updated in place: ``loss`` (float64, of the
            batches' losses) and whatever else is counted.
        memory: tensors that outlive an epoch, changed in place (queues of item
            vectors, averaged weights).
        frequency: the estimator of the served items' frequencies, or None.
        epoch: whole epochs done.
        step: optimizer steps done.
        next_batch: the first batch of the epoch under way that is not trained on yet.
        best_epoch: epochs behind the weights to keep.
        best_evaluation: metrics and counts of these.
        best: the weights to keep; None where they are the model's, or its averages.
        history: one mapping per epoch.
        seconds: wall-clock time so far.
        refresh: how mined lists are renewed (see ``training.refresh``): the steps whose towers
            made the lists in use (``lists_of_step``) and those under way (``pending_step``),
            ``refreshes``, ``wait_seconds``, ``mining_seconds``, ``reproducible``.
    """

    sums: dict[str, Tensor]
    memory: dict[str, Tensor] = field(default_factory=dict)
    frequency: FrequencyEstimator | None = None
    epoch: int = 0
    step: int = 0
    next_batch: int = 0
    best_epoch: int = 0
    best_evaluation: dict[str, Any] = field(default_factory=lambda: {"metrics": {}, "counts": {}})
    best: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    refresh: dict[str, Any] = field(default_factory=dict)

    def keep(self, model: nn.Module, evaluation: dict[str, Any]) -> None:
        """These are the best weights so far."""
        self.best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.best_epoch = self.epoch
        self.best_evaluation = evaluation

    def save(
        self,
        path: Path,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: NegativeBatches,
        device: torch.device,
    ) -> None:
        """Write all of it, of a finished stage too: it may be trained on."""
        tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
        facts: dict[str, Any] = {name: getattr(self, name) for name in _FACTS}
        facts |= {"identity": dict(identity), "batches": batches.state_dict(self.next_batch)}
        state, facts["optimizer"] = flatten_optimizer(optimizer)
        tensors |= {f"optimizer/{k}": v for k, v in state.items()}
        tensors |= {f"best/{k}": v for k, v in (self.best or {}).items()}
        tensors |= {f"sums/{k}": v for k, v in self.sums.items()}
        tensors |= {f"memory/{k}": v for k, v in self.memory.items()}
        if self.frequency is not None:
            estimate = self.frequency.state_dict()
            for name in _ARRAYS:
                tensors[f"frequency/{name}"] = torch.from_numpy(estimate.pop(name))
            facts["frequency"] = estimate
        tensors["rng/cpu"] = torch.get_rng_state()
        if device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
        save_checkpoint(path, Checkpoint(tensors, facts))

    def load(
        self,
        path: Path,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: NegativeBatches,
        device: torch.device,
        *,
        epochs: int | None = None,
    ) -> None:
        """Read what ``save`` wrote into this state, the model, the optimizer and torch.

        ``epochs``: how many the stage has in all.

        Raises:
            FileFormatError: a damaged file.
            CheckpointError: the state of another run; the error names the first difference. Or of
                more epochs than the stage has.
        """
        saved = load_checkpoint(path)
        facts = saved.facts
        theirs = facts.get("identity")
        if not isinstance(theirs, dict) or not isinstance(theirs.get("settings"), dict):
            raise FileFormatError(f"{path} is damaged: it does not say which run it is of")
        _check_same_run(path, theirs, identity)
        fault = self._fault_of_facts(facts) or self._fault_of_tensors(saved, model)
        if fault is not None:
            raise FileFormatError(f"{path} is damaged: {fault}")
        if epochs is not None and facts["epoch"] > epochs:
            raise CheckpointError(
                f"{path}: has {facts['epoch']} epochs behind it, which epochs = {epochs} cannot "
                f"undo; give epochs = {facts['epoch']} or more, or start again without --resume"
            )
        try:
            restore_optimizer(optimizer, saved.group("optimizer"), facts["optimizer"])
            if self.frequency is not None:
                self.frequency.load_state_dict({**facts["frequency"], **saved.group("frequency")})
            place = facts["batches"]
            if facts["refresh"].get("lists_of_step"):  # renewed lists, which the refresher brings
                mine = batches.state_dict()
                place = {**place, "sampler": mine["sampler"], "draws": mine["draws"]}
            batches.load_state_dict(place)
        except FastnegError as error:
            raise CheckpointError(f"{path}: {error}") from error
        model.load_state_dict(saved.group("model"))
        for name in _FACTS:
            setattr(self, name, facts[name])
        best = saved.group("best")
        self.best = {k: v.to(device) for k, v in best.items()} if best else None
        for name, tensor in saved.group("sums").items():
            self.sums[name].copy_(tensor)
        for name, tensor in saved.group("memory").items():
            self.memory[name].copy_(tensor)
        random = saved.group("rng")
        try:
            torch.set_rng_state(random["cpu"])
            if "cuda" in random and device.type == "cuda":
                torch.cuda.set_rng_state(random["cuda"], device)
        except (RuntimeError, TypeError) as error:
            raise FileFormatError(f"{path} is damaged: rng: {error}") from error

    def _fault_of_facts(self, facts: Mapping[str, Any]) -> str | None:
        """What of a checkpoint's facts cannot be a state's; None if all can."""
        groups = {"batches", "optimizer"} | (set() if self.frequency is None else {"frequency"})
        kinds = {name: type(getattr(self, name)) for name in _FACTS} | dict.fromkeys(groups, dict)
        for name, kind in kinds.items():
            value = facts.get(name)
            if type(value) is not kind or not _is_count(value, or_else=kind not in (int, float)):
                return f"{name} is {shown(value)}"
        for name in ("epoch", "next_batch"):
            place = facts["batches"].get(name)
            if type(place) is not int or not _is_count(place, or_else=False):
                return f"batches has no {name}"
        for line in facts["history"]:
            if not isinstance(line, dict) or not isinstance(line.get("validation", {}), dict):
                return f"history has {shown(line)}"
        for name in ("metrics", "counts"):
            if not isinstance(facts["best_evaluation"].get(name), dict):
                return f"best_evaluation has no {name}"
        if set(facts["refresh"]) != set(self.refresh):
            return f"refresh has {sorted(facts['refresh'])}"
        for name, value in facts["refresh"].items():
            if not _is_count(value, or_else=value is None):
                return f"refresh.{name} is {shown(value)}"
        return None

    def _fault_of_tensors(self, saved: Checkpoint, model: nn.Module) -> str | None:
        """What of a checkpoint's tensors does not fit this state and the model."""
        weights = model.state_dict()
        groups = {"model": weights, "sums": self.sums, "memory": self.memory}
        if saved.group("best"):
            groups["best"] = weights
        for group, expected in groups.items():
            fault = _difference(group, saved.group(group), expected)
            if fault is not None:
                return fault
        random = saved.group("rng").get("cpu")
        if random is None or random.dtype != torch.uint8 or random.dim() != 1:
            return "rng/cpu is no random state"
        return None


def _is_count(value: Any, *, or_else: bool) -> bool:
    """Whether a number is 0 or more, and one that counts could reach."""
    return 0 <= value < 2**62 if isinstance(value, (int, float)) else or_else


def _difference(
    group: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> str | None:
    """How the tensors of a group differ from those they are to replace, in name, shape or dtype."""
    for name in sorted({*found, *expected}):
        if name not in found:
            return f"{group}/{name} is missing"
        if name not in expected:
            return f"{group}/{name} belongs to nothing"
        one, other = found[name], expected[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            return (
                f"{group}/{name} is {one.dtype}, {tuple(one.shape)}, not {other.dtype}, "
                f"{tuple(other.shape)}"
            )
    return None


def _check_same_run(path: Path, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    for name, value in mine.items():
        theirs: Any = saved.get(name)
        if theirs == value:
            continue
        if name == "settings":
            for key, setting in value.items():
                if theirs.get(key) != setting:
                    raise CheckpointError(
                        f"{path}: was made with {key} = {theirs.get(key)!r}, not {setting!r}; "
                        "resume with the same settings or start again without --resume"
                    )
        raise CheckpointError(
            f"{path}: was made with other {_NAMES.get(name, name)}; resume with the same or start "
            "again without --resume"
        )
