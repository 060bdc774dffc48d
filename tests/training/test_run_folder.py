"""Runs that share a folder: none is written over, two do not write at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.recipes import train_recipe
from fastneg.training.distributed import ALONE
from fastneg.training.outputs import OUTPUTS, load_model
from fastneg.training.run_folder import RunFolder, remove_stages
from tests.training.test_trainer import assert_same_weights, weights

QUICK: dict[str, Any] = {"epochs": 2, "dim": 4, "batch_size": 64, "patience": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def parts() -> Any:
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    return hold_out_validation(generated.interactions)


def run(parts: Any, out: Path | None, **more: Any) -> Any:
    settings = {**QUICK, **more.pop("settings", {})}
    return train_recipe(
        *parts, recipe=more.pop("recipe", "bpr"), settings=settings, out=out, **more
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Stopped(Exception):
    pass


def stop(step: int) -> None:
    if step == 20:
        raise Stopped


def test_a_finished_run_is_not_written_over(parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(parts, out, seed=1)
    assert not (out / ".fastneg.lock").exists()
    before = contents(out)
    with pytest.raises(FastnegError, match=r"train_recipe: .*out holds model.safetensors, .*--res"):
        run(parts, out, seed=2)
    with pytest.raises(FastnegError, match="give one of them"):
        run(parts, out, seed=2, resume=True, overwrite=True)
    with pytest.raises(CheckpointError, match="was made with seed = 1, not 2"):
        run(parts, out, seed=2, resume=True)
    with pytest.raises(FastnegError, match="dim"):
        run(parts, out, overwrite=True, settings={"dim": -1})
    assert contents(out) == before
    again = run(parts, out, seed=1, resume=True)
    assert_same_weights(weights(again.model), weights(first.model))
    other = run(parts, out, seed=2, overwrite=True)
    assert_same_weights(weights(load_model(out)), weights(other.model))
    assert_same_weights(weights(run(parts, None, seed=2).model), weights(other.model))


def test_an_interrupted_run_keeps_its_checkpoints(parts: Any, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", {"checkpoint_every": 5}
    whole = run(parts, None, settings=settings)
    with pytest.raises(Stopped):
        run(parts, out, settings=settings, on_step=stop)
    before = contents(out)
    assert "checkpoints/round-1.safetensors" in before
    with pytest.raises(FastnegError, match=r"holds metrics\.jsonl, checkpoints: give --res"):
        run(parts, out, settings=settings)
    assert contents(out) == before
    resumed = run(parts, out, settings=settings, resume=True)
    assert_same_weights(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_users_own_file_is_not_replaced(name: str, parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / name).write_text("mine")
    with pytest.raises(FastnegError, match=f"out holds {name}: give --resume"):
        run(parts, out)
    if name != "checkpoints":
        with pytest.raises(FastnegError, match=f"holds {name} and no checkpoints to go on from"):
            run(parts, out, resume=True)
    assert contents(out) == {"notes.txt": b"mine", name: b"mine"}


def test_other_files_stay(parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    for name in ("notes.txt", "checkpoints/round-up.txt", "checkpoints/mine.safetensors"):
        (out / name).write_text("mine")
    (out / "config.toml").write_text("mine")
    run(parts, out, overwrite=True)
    for name in ("notes.txt", "checkpoints/round-up.txt", "checkpoints/mine.safetensors"):
        assert (out / name).read_text() == "mine"
    assert (out / "config.toml").read_text() != "mine"


def test_two_runs_do_not_write_at_once(parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    held = RunFolder(out, resume=False, overwrite=False, call="other")
    with held.held(ALONE):
        for more in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(FastnegError, match=r"another run writes to .*out"):
                run(parts, out, **more)
        assert [path.name for path in out.iterdir()] == [".fastneg.lock"]
        script = f"""
from fastneg.training.distributed import ALONE
from fastneg.training.run_folder import RunFolder
with RunFolder({str(out)!r}, resume=False, overwrite=True, call="third").held(ALONE):
    pass
"""
        ended = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert "third: another run writes to" in ended.stderr
    run(parts, out)
    assert not (out / ".fastneg.lock").exists()


def test_a_lock_that_a_killed_run_left_holds_nobody(parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"""
import os, signal
from fastneg.training.distributed import ALONE
from fastneg.training.run_folder import RunFolder
with RunFolder({str(out)!r}, resume=False, overwrite=False, call="killed").held(ALONE):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert (out / ".fastneg.lock").exists()
    run(parts, out)


def test_what_a_later_round_would_raise_comes_first(parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {"rounds": 2, "window": [81, 180]}
    started: list[int] = []
    with pytest.raises(FastnegError, match="starts beyond the catalog of 80 items"):
        run(parts, out, recipe="facebook-ebr", settings=settings, on_step=started.append)
    with pytest.raises(FastnegError, match="renews the lists that later rounds train on"):
        run(parts, out, settings={"refresh_every": 5, "rounds": 1}, on_step=started.append)
    nothing = parts[1].select([])
    with pytest.raises(FastnegError, match="train_recipe: test: test holds no positive"):
        run((*parts, nothing), out, on_step=started.append)
    assert not started
    assert not out.exists()


def test_a_run_of_rounds_is_trained_on(parts: Any, tmp_path: Path) -> None:
    """What later rounds were made from has changed: they begin anew, and so does the refit."""
    settings = {"rounds": 2, "window": [5, 40], "num_mined": 4, "num_hard": 1}
    more = {"recipe": "facebook-ebr", "refit": True}
    whole = run(parts, None, settings={**settings, "epochs": 3}, **more)
    out = tmp_path / "out"
    run(parts, out, settings={**settings, "epochs": 2}, **more)
    result = run(parts, out, settings={**settings, "epochs": 3}, resume=True, **more)
    assert_same_weights(weights(result.model), weights(whole.model))
    assert result.metrics["validation"] == whole.metrics["validation"]
    before = contents(out / "checkpoints")
    run(parts, out, settings={**settings, "epochs": 3}, resume=True, **more)
    assert contents(out / "checkpoints") == before


def test_stages_are_removed_by_number(tmp_path: Path) -> None:
    names = ["round-1.safetensors", "round-2.safetensors", "round-2-mined.safetensors",
             "round-10.safetensors", "refit-2.safetensors", "round-x.safetensors"]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "round-2-mining").mkdir()
    remove_stages(tmp_path, "round", after=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "refit-2.safetensors", "round-1.safetensors", "round-x.safetensors",
    ]  # fmt: skip
