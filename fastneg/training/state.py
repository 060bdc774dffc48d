"""How far a stage of training is: everything that a killed run needs to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastneg.errors import CheckpointError
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
    "finished",
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
        finished: whether the stage is over and the model holds the weights that were kept.
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
    finished: bool = False
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
        """Write all of it; of a finished stage only the weights that were kept."""
        tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
        facts: dict[str, Any] = {name: getattr(self, name) for name in _FACTS}
        facts |= {"identity": dict(identity), "batches": batches.state_dict(self.next_batch)}
        if not self.finished:
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
    ) -> None:
        """Read what ``save`` wrote into this state, the model, the optimizer and torch.

        Raises:
            FileFormatError: a damaged file.
            CheckpointError: the state of another run; the error names the first difference.
        """
        saved = load_checkpoint(path)
        facts = saved.facts
        _check_same_run(path, facts["identity"], identity)
        try:
            model.load_state_dict(saved.group("model"))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: the weights are another model's ({error})") from error
        for name in _FACTS:
            setattr(self, name, facts[name])
        if self.finished:
            return
        restore_optimizer(optimizer, saved.group("optimizer"), facts["optimizer"])
        best = saved.group("best")
        self.best = {k: v.to(device) for k, v in best.items()} if best else None
        for name, tensor in saved.group("sums").items():
            self.sums[name].copy_(tensor)
        for name, tensor in saved.group("memory").items():
            self.memory[name].copy_(tensor)
        if self.frequency is not None:
            self.frequency.load_state_dict({**facts["frequency"], **saved.group("frequency")})
        random = saved.group("rng")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], device)
        batches.load_state_dict(facts["batches"])


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
