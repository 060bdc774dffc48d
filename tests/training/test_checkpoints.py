"""Checkpoints: what goes in comes out, in one file, replaced in one step, without pickle."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from fastneg.errors import CheckpointError, FastnegError, FileFormatError
from fastneg.training.checkpoints import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    replacing,
    restore_optimizer,
    save_checkpoint,
    write_json,
)


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "state.safetensors"
    tensors = {
        "model/a": torch.randn(3, 4),
        "model/b": torch.arange(6).view(2, 3).T,  # not contiguous
        "rng/cpu": torch.get_rng_state(),
        "progress/sum": torch.tensor(1.5, dtype=torch.float64),
    }
    save_checkpoint(path, Checkpoint(tensors, {"epoch": 3, "nested": {"x": [1, None, "é"]}}))
    read = load_checkpoint(path)
    assert read.facts == {"epoch": 3, "nested": {"x": [1, None, "é"]}}
    assert read.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read.tensors[name], tensor)
        assert read.tensors[name].dtype == tensor.dtype
    assert set(read.group("model")) == {"a", "b"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(FileFormatError, match="there is no such checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, Checkpoint({"a": torch.ones(100)}))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match="not a checkpoint of fastneg, or a damaged one"):
        load_checkpoint(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(FileFormatError, match="not a checkpoint of fastneg"):
        load_checkpoint(path)
    save_file({"a": torch.ones(1)}, path, metadata={"fastneg": '{"version": 99}'})
    with pytest.raises(CheckpointError, match="checkpoint version 99; this fastneg reads 2"):
        load_checkpoint(path)


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def stop_in_the_middle() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        stop_in_the_middle()
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_kill_while_writing_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "state.safetensors"
    script = f"""
import os, pathlib, signal, torch
from fastneg.training.checkpoints import Checkpoint, save_checkpoint
save_checkpoint({str(path)!r}, Checkpoint({{"a": torch.zeros(9)}}, {{"step": 1}}))
def killed(self, target):
    assert self.stat().st_size > 0
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.replace = killed
save_checkpoint({str(path)!r}, Checkpoint({{"a": torch.ones(9)}}, {{"step": 2}}))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -9
    assert load_checkpoint(path).facts == {"step": 1}
    save_checkpoint(path, Checkpoint({"a": torch.ones(9)}, {"step": 3}))
    assert load_checkpoint(path).facts == {"step": 3}


def test_a_folder_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FastnegError, match=r"cannot write .*file/state.safetensors"):
        save_checkpoint(blocked / "state.safetensors", Checkpoint({}))


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_state_goes_on_exactly(fused, tmp_path):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01, fused=fused)

    def steps(model, optimizer, first, last):
        for step in range(first, last):
            optimizer.zero_grad()
            model(torch.full((2, 4), float(step))).square().sum().backward()
            optimizer.step()

    straight, optimizer = make()
    steps(straight, optimizer, 0, 6)
    first, optimizer = make()
    steps(first, optimizer, 0, 3)
    tensors, facts = flatten_optimizer(optimizer)
    path = tmp_path / "o.safetensors"
    save_checkpoint(path, Checkpoint(tensors, facts))
    read = load_checkpoint(path)
    second, optimizer = make()
    second.load_state_dict(first.state_dict())
    restore_optimizer(optimizer, read.tensors, read.facts)
    steps(second, optimizer, 3, 6)
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(CheckpointError, match="another model's"):
        restore_optimizer(other, read.tensors, read.facts)
