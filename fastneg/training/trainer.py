"""One stage of training: epochs over fresh negatives, early stopping, checkpoints, exact resume.

A run that is killed at any step and resumed gives the weights of the undisturbed run, bit for bit
on the CPU: a checkpoint holds the weights, their average and the best so far, the optimizer's
state, torch's random state (dropout), the place in the epoch and the sums over its batches; of
mined lists that are renewed under way (``training.refresh``), the steps they come from.

Under torchrun all processes train together (``training.distributed``): each its slice of every
batch, with the loss and (but for dropout) the weights of one process; the first alone writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from fastneg.checks import fail
from fastneg.interactions import Interactions
from fastneg.streams import key_of, stream_of
from fastneg.training.ahead import ahead, loader
from fastneg.training.averaging import WeightAverage, averaged
from fastneg.training.background import Stopped
from fastneg.training.batches import Batch
from fastneg.training.data_defaults import settled
from fastneg.training.distributed import Ranks, pick_device
from fastneg.training.divergence import divergence, naming_divergence, weights_are_finite
from fastneg.training.fit_result import FitResult
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.metrics import Evaluation
from fastneg.training.negatives import Objective
from fastneg.training.progress import Bar, Interruption, epoch_note, start_log
from fastneg.training.refresh import Refresher, refresh_folder
from fastneg.training.row_adam import make_optimizer
from fastneg.training.settings import Settings
from fastneg.training.source_data import NOTHING, SourceData
from fastneg.training.state import TrainingState
from fastneg.training.towers import TwoTower
from fastneg.training.trainer_checks import check_fit, check_objects, check_paths
from fastneg.training.validation import Validation, out_of_patience

_CALL = "Trainer"
# what may differ between a run and its resumption without changing a weight
# and what a finished run may be given more of
_FREE = (
    "checkpoint_every", "num_workers", "device", "refresh_background", "memory_budget", "epochs",
    "patience",
)  # fmt: skip
_TOTALS = ("refreshes", "wait_seconds", "mining_seconds")


class Trainer:
    """Trains a model on interactions by its settings, once.

    Args:
        model: a ``TwoTower``; it is trained in place and left with the weights that were kept.
        train: the interactions whose positives are the examples.
        settings: see ``Settings``; what they leave to the data, ``data_defaults`` decides.
        validation: held-out positives with the codes of ``train``. With it, NDCG@k on it (on
            ``eval_users`` of its users) decides which epoch is kept and when to stop; without it
            the last, or the average, is kept.
        hard: mined hard negatives, renewed every ``settings.refresh_every`` steps; or None.
        data: what a list of negatives draws from besides (see ``source_data``).
        stage: a name for the log, the checkpoint's identity and the streams of random words.
        checkpoint: a file to save the state to, or None.
        log: a file of JSON lines, one per epoch, or None.
        progress: whether to show a bar where stderr is a terminal (None: yes).
        on_step: called with the number of steps done, before its checkpoint; vectors are current,
            the ``state_dict`` after ``optimizer.settle()``.

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
        data: SourceData = NOTHING,
        stage: str = "train",
        checkpoint: str | Path | None = None,
        log: str | Path | None = None,
        progress: bool | None = False,
        on_step: Callable[[int], object] | None = None,
    ) -> None:
        check_objects(
            _CALL, model=model, train=train, settings=settings, validation=validation, hard=hard,
            data=data, stage=stage, progress=progress, on_step=on_step,
        )  # fmt: skip
        self.ranks = ranks = Ranks.here()
        self.device = pick_device(settings.device)
        self.model = model.to(self.device)
        self.settings = settings = settled(settings, train, validation)[0]
        self.train, self.validation = train, None
        if validation is not None:
            self.validation = Validation(train, validation, k=settings.k, count=settings.eval_users)
        self.stage, self.on_step, self.hard = stage, on_step, hard
        self.progress = progress if ranks.is_first else False
        given = check_paths(_CALL, checkpoint=checkpoint, log=log)
        self.checkpoint = given.get("checkpoint")
        self.log = given.get("log") if ranks.is_first else None
        self.objective = Objective(
            train, settings, hard=hard, data=data, device=self.device, stage=stage, ranks=ranks
        )
        self.batches = self.objective.batches
        self.optimizer = make_optimizer(model, settings, self.device, ranks=ranks)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.state = TrainingState({"loss": loss_sum, **self.objective.sums})
        self.average: WeightAverage | None = None
        if settings.average_decay > 0:
            self.average = WeightAverage(self.model, settings.average_decay)
        averages = {} if self.average is None else self.average.tensors
        self.state.memory = {**self.objective.memory, **averages}
        self.state.frequency = self.objective.frequency
        if hard is not None:
            for name in ("mined_age", "refreshes", "refresh_wait"):
                self.state.sums[name] = torch.zeros((), dtype=torch.float64)
        self.refresher: Refresher | None = None
        if hard is not None and settings.refresh_every is not None:
            self.refresher = Refresher(
                model,
                train,
                settings,
                hard=hard,
                objective=self.objective,
                state=self.state,
                folder=None if self.checkpoint is None else refresh_folder(self.checkpoint),
                ranks=ranks,
            )
        self._between_steps = True
        self._identity: dict[str, Any] = {
            "stage": stage,
            "settings": {k: v for k, v in settings.to_dict().items() if k not in _FREE},
            "data": train.fingerprint(),
            "validation": None if validation is None else validation.fingerprint(),
            "hard": None if hard is None else hard.fingerprint(),
            "sources": data.fingerprint(),
            "ranks": 1 if settings.gather_negatives else ranks.size,
        }

    def fit(
        self,
        *,
        epochs: int | None = None,
        resume: bool = False,
        starting: Callable[[], object] | None = None,
    ) -> FitResult:
        """Train until the last epoch, or until validation NDCG stops improving.

        Args:
            epochs: instead of the settings' number.
            resume: go on from the checkpoint where there is one; a finished stage returns at once,
                and is trained on where it has more epochs, or more patience, than it had.
            starting: called before the first step, and not where a finished stage returns.

        Raises:
            FastnegError: the loss is no longer finite; mining new lists failed; ``fit`` was called
                before.
            CheckpointError: the checkpoint is of another run.
            KeyboardInterrupt: after Ctrl-C; the checkpoint is saved before.
        """
        if self.state.step:
            fail(f"{_CALL}.fit", "was called before; make another Trainer to train on")
        epochs, resume = check_fit(f"{_CALL}.fit", epochs, resume, starting)
        total = self.settings.epochs if epochs is None else epochs
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(key_of(self.settings.seed, stream_of(self.stage, "dropout")) >> 1)
            found = resume and self.checkpoint is not None and self.checkpoint.is_file()
            if self.ranks.from_first(found) and self.checkpoint is not None:
                self.state.load(self.checkpoint, *self._parts(), epochs=total)
            elif self.refresher is not None:
                self.refresher.forget(everything=True)  # of an older run
            if starting is not None and not self._is_over(total):
                starting()
            if self.log is not None:
                start_log(self.log, self.stage, self.state.history)
            steps = total * len(self.batches)
            if self.refresher is not None:
                self.refresher.forget()
                if self.settings.subsample_positives is None:
                    self.refresher.last_step = steps
            with Bar(self.stage, steps, enabled=self.progress) as bar, Interruption() as stop:
                bar.advance(self.state.step)
                try:
                    self._run(total, bar, stop)
                finally:
                    if self.refresher is not None:
                        self.refresher.close()
                    self.optimizer.release()
        self.model.eval()
        return FitResult(
            epoch=self.state.best_epoch,
            epochs_run=self.state.epoch,
            steps=self.state.step,
            seconds=self.state.seconds,
            history=list(self.state.history),
            refresh={k: self.state.refresh[k] for k in _TOTALS if k in self.state.refresh},
            reproducible=self.state.refresh.get("reproducible", True),
            **self.state.best_evaluation,
        )

    def _run(self, total: int, bar: Bar, stop: Interruption) -> None:
        state = self.state
        started = time.perf_counter() - state.seconds
        while not self._is_over(total):
            epoch_started = time.perf_counter()
            with naming_divergence(
                self.model, self.settings, stage=self.stage, epoch=state.epoch + 1
            ):
                try:
                    self._train_epoch(bar, stop, started)
                except (RuntimeError, Stopped):
                    if not stop.asked:
                        raise
                    # Ctrl-C reached the loader's workers too, and one of them ended; or the mining
                    if self._between_steps:
                        self._save(started)
                    raise KeyboardInterrupt from None
                self._end_epoch(total, epoch_started)
            bar.note(epoch_note(state.history[-1], f"ndcg@{self.settings.k}"))
            self._save(started)
            if self.ranks.any(stop.asked):
                raise KeyboardInterrupt
        self.optimizer.settle()
        if state.best is not None:
            self.model.load_state_dict(state.best)
            state.best = None
            self._evaluate_kept()
        elif self.average is not None and state.epoch:
            self.average.copy_to(self.model)

    def _train_epoch(self, bar: Bar, stop: Interruption, started: float) -> None:
        state = self.state
        self.batches.set_epoch(state.epoch)
        num_batches = len(self.batches)
        while state.next_batch < num_batches:
            if self.refresher is not None:
                self.refresher.at(state.step, stop, bar)
            self.model.train()
            self._train_until_refresh(bar, stop, started)

    def _train_until_refresh(self, bar: Bar, stop: Interruption, started: float) -> None:
        """The rest of the epoch, or the steps before the next one at which lists change."""
        state, every, refresher = self.state, self.settings.checkpoint_every, self.refresher
        with contextlib.closing(self._loader()) as batches:
            for batch in batches:
                self._between_steps = False
                self._seed_dropout()
                loss = self.objective.loss(self.model, batch)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.ranks.sum_gradients(self.model.parameters())
                self.optimizer.step()
                state.sums["loss"] += self.ranks.sum(loss.detach())
                if self.hard is not None:
                    state.sums["mined_age"] += state.step - state.refresh.get("lists_of_step", 0)
                state.step += 1
                state.next_batch += 1
                self._between_steps = True
                bar.advance()
                if self.on_step is not None:
                    self.on_step(state.step)
                asked = self.ranks.any(stop.asked)
                if asked or (every and state.step % every == 0):
                    self._save(started)
                    if asked:
                        raise KeyboardInterrupt
                if refresher is not None and refresher.due(state.step):
                    return  # batches beyond this step are made already: the loader starts anew

    def _seed_dropout(self) -> None:
        """Ranks have words of their own at every step, so that no state of them is to be saved."""
        if self.ranks.size > 1 and self.settings.dropout > 0:
            rank = 0 if self.objective.whole_batches else self.ranks.rank
            stream = stream_of(self.stage, "dropout", f"rank {rank}")
            torch.manual_seed(key_of(self.settings.seed, stream, self.state.step) >> 1)

    def _loader(self) -> Generator[Batch, None, None]:
        self.batches.set_epoch(self.state.epoch)
        if self.state.next_batch:
            self.batches.load_state_dict(self.batches.state_dict(self.state.next_batch))
        made = loader(
            self.batches,
            self.settings.num_workers,
            pin_memory=self.device.type == "cuda",
            spawn=self._mines_beside(),
        )
        return ahead(made, self.objective.prepare, Batch.num_bytes)

    def _mines_beside(self) -> bool:
        return self.refresher is not None and self.settings.refresh_background

    def _end_epoch(self, total: int, started: float) -> None:
        state = self.state
        state.epoch, state.next_batch = state.epoch + 1, 0
        loss = float(state.sums["loss"]) / len(self.batches)
        if not math.isfinite(loss) or not weights_are_finite(self.model):
            found = "there are weights that are no numbers"
            if not math.isfinite(loss):
                found = f"the loss is {loss}"
            raise divergence(self.settings, stage=self.stage, epoch=state.epoch, found=found)
        line: dict[str, Any] = {
            "stage": self.stage,
            "epoch": state.epoch,
            "step": state.step,
            "loss": loss,
            **self.objective.statistics(),
        }
        if self.settings.learn_temperature:
            line["temperature"] = self.model.temperature
        if self.settings.subsample_positives is not None:
            line["kept_rows"] = self.batches.num_examples
        if self.hard is not None:
            line["mined_age_steps"] = float(state.sums["mined_age"]) / len(self.batches)
        if self.refresher is not None:
            line["refreshes"] = int(state.sums["refreshes"])
            line["refresh_wait_seconds"] = round(float(state.sums["refresh_wait"]), 3)
            line["reproducible"] = state.refresh["reproducible"]
        for running in state.sums.values():
            running.zero_()
        if self.average is not None:
            self.optimizer.settle()
            self.average.update(self.model, state.epoch)
        if self.validation is None:
            state.best_epoch = state.epoch
        elif state.epoch == total or state.epoch % self.settings.eval_every == 0:
            line["validation"] = self._evaluate()
            if self.validation.sampled:
                line["eval_users"] = self.settings.eval_users
        line["seconds"] = round(time.perf_counter() - started, 3)
        state.history.append(line)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")

    def _evaluate(self) -> dict[str, float]:
        """On the sample; the weights are kept where they are the best so far."""
        assert self.validation is not None
        self.optimizer.settle()
        key = f"ndcg@{self.settings.k}"
        with averaged(self.model, self.average):
            metrics, counts = self._of_first(self.validation.on_sample)
            if metrics[key] > self.state.best_evaluation["metrics"].get(key, -1.0):
                self.state.keep(self.model, {"metrics": metrics, "counts": counts})
        return metrics

    def _evaluate_kept(self) -> None:
        """The kept weights' metrics, of all users where a sample has chosen them."""
        if self.validation is not None and self.validation.sampled:
            metrics, counts = self._of_first(self.validation.on_all)
            self.state.best_evaluation = {"metrics": metrics, "counts": counts}

    def _of_first(
        self, evaluate: Callable[[TwoTower], Evaluation]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """(metrics, counts) by the first rank, for all of them."""
        facts = None
        if self.ranks.is_first:
            result = evaluate(self.model)
            facts = dict(result.metrics), dict(result.counts)
        found: tuple[dict[str, float], dict[str, Any]] = self.ranks.from_first(facts)
        return found

    def evaluation(self) -> Evaluation:
        """The model as it is now, on all validation positives."""
        if self.validation is None:
            fail(_CALL, "there is no validation to evaluate on")
        return self.validation.on_all(self.model)

    def _is_over(self, total: int) -> bool:
        key, history = f"ndcg@{self.settings.k}", self.state.history
        scores = [line["validation"][key] for line in history if "validation" in line]
        return self.state.epoch >= total or out_of_patience(scores, self.settings.patience)

    def _parts(self) -> tuple[Any, ...]:
        return self._identity, self.model, self.optimizer, self.batches, self.device

    def _save(self, started: float) -> None:
        self.state.seconds = time.perf_counter() - started
        if self.checkpoint is None or not self.ranks.is_first:
            return
        if self.refresher is not None:
            self.refresher.save()  # first what the checkpoint refers to
        self.state.save(self.checkpoint, *self._parts())
        if self.refresher is not None:
            self.refresher.forget()
