"""One stage of training: epochs over fresh negatives, early stopping, checkpoints, exact resume.

A run that is killed at any step and resumed gives the weights of the undisturbed run, bit for bit
on the CPU: a checkpoint holds the weights, the optimizer's state, the best weights so far, torch's
random state (dropout), the place in the epoch and the sum of its losses.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastneg.checks import fail
from fastneg.errors import CheckpointError, FastnegError
from fastneg.interactions import Interactions
from fastneg.streams import key_of, stream_of
from fastneg.training.batches import Batch
from fastneg.training.checkpoints import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
    write_text,
)
from fastneg.training.evaluation import Evaluation, evaluate
from fastneg.training.negatives import HardNegatives, Objective
from fastneg.training.progress import Bar, Interruption
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower

_CALL = "Trainer"
# what may differ between a run and its resumption without changing a weight
_FREE = ("checkpoint_every", "num_workers", "device")


@dataclass(frozen=True)
class FitResult:
    """What one stage of training gave.

    Attributes:
        epoch: epochs behind the weights that were kept.
        epochs_run: epochs trained in all.
        steps: optimizer steps in all.
        seconds: wall-clock time, evaluations included, interruptions not.
        metrics, counts: of the kept weights on validation; empty without validation.
        history: one mapping per epoch, as in ``metrics.jsonl``.
    """

    epoch: int
    epochs_run: int
    steps: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def pick_device(name: str) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        FastnegError: a device that this machine or build of torch does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FastnegError(f"device = {name!r} cannot be used here: {reason}") from error
    return torch.device(name)


class Trainer:
    """Trains a model on interactions by its settings.

    Args:
        model: a ``TwoTower``; it is trained in place and left with the weights that were kept.
        train: the interactions whose positives are the examples.
        settings: see ``Settings``.
        validation: held-out positives with the codes of ``train``. With it, NDCG@k on it decides
            which epoch is kept and when to stop; without it, all epochs run and the last is kept.
        hard: mined hard negatives, or None.
        stage: a name for the log and for the checkpoint's identity.
        checkpoint: a file to save the state to, or None.
        log: a file of JSON lines, one per epoch, or None.
        progress: True or False; None shows the bar where stderr is a terminal.
        on_step: called with the number of steps done, after each and before its checkpoint.

    Raises:
        FastnegError: bad settings, data without examples, validation with other codes.
    """

    def __init__(
        self,
        model: TwoTower,
        train: Interactions,
        settings: Settings,
        *,
        validation: Interactions | None = None,
        hard: HardNegatives | None = None,
        stage: str = "train",
        checkpoint: str | Path | None = None,
        log: str | Path | None = None,
        progress: bool | None = False,
        on_step: Callable[[int], object] | None = None,
    ) -> None:
        if validation is not None:
            mine, other = (train.num_users, train.num_items), (
                validation.num_users, validation.num_items,
            )
            if other[0] < mine[0] or other[1] < mine[1]:  # further codes are unknown ids
                fail(_CALL, f"validation has {other[0]} users and {other[1]} items, train has "
                            f"{mine[0]} and {mine[1]}; both need the same codes")
        self.device = pick_device(settings.device)
        self.model = model.to(self.device)
        self.train, self.validation, self.settings = train, validation, settings
        self.stage, self.progress, self.on_step = stage, progress, on_step
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.log = None if log is None else Path(log)
        self.objective = Objective(train, settings, hard=hard, device=self.device, stage=stage)
        self.batches = self.objective.batches
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self._identity: dict[str, Any] = {
            "stage": stage,
            "settings": {k: v for k, v in settings.to_dict().items() if k not in _FREE},
            "data": train.fingerprint(),
            "validation": None if validation is None else validation.fingerprint(),
            "hard": None if hard is None else hard.fingerprint(),
        }
        self._reset()

    def _reset(self) -> None:
        self.epoch = self.step = self._next_batch = self._since_best = 0
        self.best_epoch = 0
        self._best: dict[str, Tensor] | None = None
        self._best_evaluation: dict[str, Any] = {"metrics": {}, "counts": {}}
        self._history: list[dict[str, Any]] = []
        self._seconds, self._finished = 0.0, False
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)

    # The loop ------------------------------------------------------------------------------

    def fit(self, *, epochs: int | None = None, resume: bool = False) -> FitResult:
        """Train until the last epoch, or until validation NDCG stops improving.

        Args:
            epochs: instead of the settings' number.
            resume: go on from the checkpoint where there is one; a finished stage returns at once.

        Raises:
            FastnegError: the loss is no longer finite.
            CheckpointError: the checkpoint is of another run.
            KeyboardInterrupt: after Ctrl-C; the checkpoint is saved before.
        """
        total = self.settings.epochs if epochs is None else int(epochs)
        self._identity["epochs"] = total
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(key_of(self.settings.seed, stream_of(self.stage, "dropout")) >> 1)
            if resume and self.checkpoint is not None and self.checkpoint.is_file():
                self._load(self.checkpoint)
            self._start_log()
            if not self._finished:
                steps = total * len(self.batches)
                with Bar(self.stage, steps, enabled=self.progress) as bar, Interruption() as stop:
                    bar.advance(self.step)
                    self._run(total, bar, stop)
        return FitResult(
            epoch=self.best_epoch,
            epochs_run=self.epoch,
            steps=self.step,
            seconds=self._seconds,
            history=list(self._history),
            **self._best_evaluation,
        )

    def _run(self, total: int, bar: Bar, stop: Interruption) -> None:
        started = time.perf_counter() - self._seconds
        while self.epoch < total and not self._out_of_patience():
            epoch_started = time.perf_counter()
            self._train_epoch(bar, stop, started)
            self.epoch += 1
            self._next_batch = 0
            self._end_epoch(total, time.perf_counter() - epoch_started)
            bar.note(self._note())
            self._seconds = time.perf_counter() - started
            if self.epoch < total and not self._out_of_patience():
                self._save()
        if self._best is not None:
            self.model.load_state_dict(self._best)
        self.model.eval()
        self._finished = True
        self._seconds = time.perf_counter() - started
        self._save()

    def _train_epoch(self, bar: Bar, stop: Interruption, started: float) -> None:
        every = self.settings.checkpoint_every
        self.model.train()
        for batch in self._loader():
            loss = self.objective.loss(self.model, batch.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._loss_sum += loss.detach()
            self.step += 1
            self._next_batch += 1
            bar.advance()
            if self.on_step is not None:
                self.on_step(self.step)
            if stop.asked or (every and self.step % every == 0):
                self._seconds = time.perf_counter() - started
                self._save()
                if stop.asked:
                    raise KeyboardInterrupt

    def _loader(self) -> Iterator[Batch]:
        self.batches.set_epoch(self.epoch)
        if self._next_batch:
            self.batches.load_state_dict(self.batches.state_dict(self._next_batch))
        if self.settings.num_workers == 0:
            return iter(self.batches)
        loader: Iterable[Batch] = DataLoader(
            self.batches,
            batch_size=None,
            num_workers=self.settings.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def _end_epoch(self, total: int, seconds: float) -> None:
        loss = float(self._loss_sum) / len(self.batches)
        self._loss_sum.zero_()
        if not math.isfinite(loss):
            raise FastnegError(
                f"the loss is {loss} in epoch {self.epoch} of stage {self.stage!r}; a smaller "
                f"learning_rate (now {self.settings.learning_rate}) or a larger temperature "
                f"(now {self.settings.temperature}) helps"
            )
        line: dict[str, Any] = {
            "stage": self.stage, "epoch": self.epoch, "step": self.step, "loss": loss,
            "seconds": round(seconds, 3), **self.objective.statistics(),
        }
        last = self.epoch == total
        if self.validation is None:
            self.best_epoch = self.epoch
        elif last or self.epoch % self.settings.eval_every == 0:
            line["validation"] = self._evaluate()
        self._history.append(line)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")

    def _evaluate(self) -> dict[str, float]:
        result = self.evaluation()
        key = f"ndcg@{self.settings.k}"
        best = self._best_evaluation["metrics"].get(key, -1.0)
        if result.metrics[key] > best:
            self.best_epoch, self._since_best = self.epoch, 0
            self._best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self._best_evaluation = {
                "metrics": dict(result.metrics), "counts": dict(result.counts),
            }
        else:
            self._since_best += 1
        return dict(result.metrics)

    def evaluation(self) -> Evaluation:
        """The model as it is now, on the validation positives."""
        if self.validation is None:
            fail(_CALL, "there is no validation to evaluate on")
        return evaluate(
            self.model.user_vectors(),
            self.model.item_vectors(),
            train=self.train,
            test=self.validation,
            k=(self.settings.k,),
            scores_cold_users=self.model.scores_cold_users,
        )

    def _out_of_patience(self) -> bool:
        return 0 < self.settings.patience <= self._since_best

    def _note(self) -> str:
        line = self._history[-1]
        key = f"ndcg@{self.settings.k}"
        shown = f"loss {line['loss']:.4f}"
        if "validation" in line:
            shown += f", {key} {line['validation'][key]:.4f}"
        return f"epoch {self.epoch}: {shown}"

    # Saved state ---------------------------------------------------------------------------

    def _start_log(self) -> None:
        """Keep the lines of other stages; write this one's anew from its history."""
        if self.log is None:
            return
        lines = []
        if self.log.is_file():
            for text in self.log.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:  # the run was killed while it wrote this line
                    continue
                if isinstance(line, dict) and line.get("stage") != self.stage:
                    lines.append(text)
        lines += [json.dumps(line) for line in self._history]
        write_text(self.log, "".join(line + "\n" for line in lines))

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        facts: dict[str, Any] = {
            "identity": self._identity,
            "epoch": self.epoch,
            "step": self.step,
            "since_best": self._since_best,
            "best_epoch": self.best_epoch,
            "best_evaluation": self._best_evaluation,
            "history": self._history,
            "seconds": self._seconds,
            "finished": self._finished,
            "batches": self.batches.state_dict(self._next_batch),
        }
        if not self._finished:  # a finished stage only needs the weights that were kept
            optimizer, facts["optimizer"] = flatten_optimizer(self.optimizer)
            tensors |= {f"optimizer/{k}": v for k, v in optimizer.items()}
            tensors |= {f"best/{k}": v for k, v in (self._best or {}).items()}
            tensors["rng/cpu"] = torch.get_rng_state()
            if self.device.type == "cuda":
                tensors["rng/cuda"] = torch.cuda.get_rng_state(self.device)
            tensors["progress/loss_sum"] = self._loss_sum
        save_checkpoint(self.checkpoint, Checkpoint(tensors, facts))

    def _load(self, path: Path) -> None:
        saved = load_checkpoint(path)
        facts = saved.facts
        _same_run(path, facts["identity"], self._identity)
        try:
            self.model.load_state_dict(saved.group("model"))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: the weights are another model's ({error})") from error
        self.epoch, self.step = facts["epoch"], facts["step"]
        self._since_best, self.best_epoch = facts["since_best"], facts["best_epoch"]
        self._best_evaluation, self._history = facts["best_evaluation"], facts["history"]
        self._seconds, self._finished = facts["seconds"], facts["finished"]
        if self._finished:
            self.model.eval()
            return
        restore_optimizer(self.optimizer, saved.group("optimizer"), facts["optimizer"])
        best = saved.group("best")
        self._best = {k: v.to(self.device) for k, v in best.items()} if best else None
        random = saved.group("rng")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)
        self._loss_sum = saved.tensors["progress/loss_sum"].to(self.device)
        self.batches.load_state_dict(facts["batches"])
        self._next_batch = facts["batches"]["next_batch"]


def _same_run(path: Path, saved: dict[str, Any], mine: dict[str, Any]) -> None:
    """Raise CheckpointError naming the first difference between two runs' identities."""
    names = {"data": "training data", "validation": "validation data", "hard": "mined negatives"}
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
            f"{path}: was made with other {names.get(name, name)}; resume with the same or start "
            "again without --resume"
        )
