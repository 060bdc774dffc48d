"""In Lightning: every epoch another one, and a resumed run serves what the whole run serves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastneg.interactions import Interactions
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import NegativeBatches

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip(
        "pytorch_lightning", reason="pytorch-lightning is not installed", exc_type=ImportError
    )

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES, SIZE = 40, 10


def _seen() -> Interactions:
    return Interactions.from_codes(np.arange(EXAMPLES) % 5, np.arange(EXAMPLES), num_items=500)


def _batches() -> NegativeBatches:
    seen = _seen()
    return NegativeBatches(seen, batch_size=SIZE, sampler=UniformSampler(seen), num_negatives=2)


class Recorder(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """Writes down every batch; says the epoch as users do, at its start."""

    def __init__(self, data: Any, set_epoch: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.data, self.set_data_epoch = data, set_epoch
        self.served: dict[int, list[Any]] = {}

    def train_dataloader(self) -> Any:
        return self.data

    def on_train_epoch_start(self) -> None:
        if self.set_data_epoch is not None:
            self.set_data_epoch(self.current_epoch)

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        if hasattr(batch, "rows"):
            batch = torch.cat([batch.rows[:, None], batch.negatives.items], dim=1)
        self.served.setdefault(self.current_epoch, []).append(batch.tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)

    def transfer_batch_to_device(self, batch: Any, device: Any, number: int) -> Any:
        return batch


def _fit(
    folder: Path, module: Recorder, epochs: int, checkpoint: Path | None = None, **saved: int
) -> Path:
    saving = lightning.callbacks.ModelCheckpoint(folder, filename=f"after {epochs}", **saved)
    trainer = lightning.Trainer(
        callbacks=[saving], max_epochs=epochs, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=checkpoint, weights_only=False)
    return folder / f"after {epochs}.ckpt"


def _expected(epoch: int) -> list[Any]:
    batches = _batches()
    batches.set_epoch(epoch)
    return [torch.cat([b.rows[:, None], b.negatives.items], dim=1).tolist() for b in batches]


def _plain_loader(batches: NegativeBatches) -> Any:
    return DataLoader(batches, batch_size=None)


@pytest.mark.parametrize("says", [True, False], ids=["set_epoch", "nothing said"])
@pytest.mark.parametrize("wrap", [lambda b: b, _plain_loader], ids=["itself", "DataLoader"])
def test_a_resumed_run_serves_what_the_whole_run_serves(
    wrap: Any, says: bool, tmp_path: Path
) -> None:
    def module() -> Recorder:
        batches = _batches()
        return Recorder(wrap(batches), batches.set_epoch if says else None)

    whole = module()
    _fit(tmp_path, whole, 4)
    assert whole.served == {epoch: _expected(epoch) for epoch in range(4)}
    if not says:  # Lightning starts the loader anew, and no one tells it where
        return
    begun = module()
    checkpoint = _fit(tmp_path, begun, 2)
    resumed = module()
    _fit(tmp_path, resumed, 4, checkpoint)
    assert sorted(resumed.served) == [2, 3]
    assert begun.served | resumed.served == whole.served


class Workers(Recorder):
    """Loader workers are at work before ``on_train_epoch_start``: they are told before that.

    With ``set_epoch``, as the loader is handed over; or by the loader's state, which goes into
    Lightning's checkpoint and back. ``current_epoch`` is no use there: of a checkpoint of the end
    of epoch 1 it is 1 until training starts, where ``epoch_progress.current.processed`` is 2.
    """

    def __init__(self, way: str, persistent: bool, says: bool) -> None:
        self.batches, self.says = _batches(), says
        loader = DataLoader(
            self.batches, batch_size=None, num_workers=2, multiprocessing_context=way,
            persistent_workers=persistent,
        )  # fmt: skip
        super().__init__(loader, None)

    def train_dataloader(self) -> Any:
        if self.says:
            self.batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return self.data

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        consumed = self.trainer.fit_loop.batch_idx + 1
        checkpoint["batches"] = self.batches.state_dict(next_batch=consumed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.says:
            self.batches.load_state_dict(checkpoint["batches"])


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("says", [True, False], ids=["set_epoch", "state"])
def test_workers_of_a_run_that_is_resumed_at_the_end_of_an_epoch(
    says: bool, persistent: bool, tmp_path: Path
) -> None:
    begun, resumed = (Workers("fork", persistent, says) for _ in range(2))
    checkpoint = _fit(tmp_path, begun, 2)
    _fit(tmp_path, resumed, 4, checkpoint)
    assert begun.served == {epoch: _expected(epoch) for epoch in (0, 1)}
    assert resumed.served == {epoch: _expected(epoch) for epoch in (2, 3)}


@pytest.mark.parametrize(("way", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_of_a_run_that_is_resumed_in_the_middle_of_an_epoch(
    way: str, persistent: bool, tmp_path: Path
) -> None:
    begun, resumed = (Workers(way, persistent, says=False) for _ in range(2))
    checkpoint = _fit(tmp_path, begun, 2, every_n_train_steps=6)  # of eight
    _fit(tmp_path, resumed, 3, checkpoint)
    assert resumed.served == {1: _expected(1)[2:], 2: _expected(2)}


class Draws:
    """A collate function of a user's own."""

    def __init__(self) -> None:
        self.sampler = UniformSampler(_seen(), seed=3)

    def __call__(self, rows: list[int]) -> torch.Tensor:
        return self.sampler.sample(np.array(rows) % 5, 2, rows=np.array(rows)).items


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_ones_own(workers: int, tmp_path: Path) -> None:
    """``set_epoch`` at the start of an epoch reaches the workers that are at work."""
    draws, alone = Draws(), Draws()
    loader = DataLoader(
        range(EXAMPLES), batch_size=SIZE, collate_fn=draws, num_workers=workers,
        persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    module = Recorder(loader, draws.sampler.set_epoch)
    _fit(tmp_path, module, 3)
    for epoch in range(3):
        alone.sampler.set_epoch(epoch)
        expected = [alone(list(range(k, k + SIZE))).tolist() for k in range(0, EXAMPLES, SIZE)]
        assert module.served[epoch] == expected
