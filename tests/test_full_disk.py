"""Every writer of the package on a full disk: one clear line, nothing half-written left behind.

A limit on the size of files stops writes as a full disk does: partly, without a word from some
libraries, and with an error of the system from others.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import fastneg
from fastneg.commands import mine as mine_command
from fastneg.errors import FastnegError, system_reason
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.shards import mine_to_folder
from fastneg.samplers.alias_table import AliasTable
from fastneg.training import checkpoints, outputs
from fastneg.training.sampled_evaluation import freeze_sampled_candidates

resource = pytest.importorskip("resource")
LIMIT = 2_048


@contextlib.contextmanager
def full_disk():
    """No file grows beyond ``LIMIT`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def pairs(seed=0, num=4_000):
    rng = np.random.default_rng(seed)
    return [f"u{u}" for u in rng.integers(0, 300, num)], [
        f"i{i}" for i in rng.integers(0, 400, num)
    ]


def save_interactions(folder):
    seen = fastneg.Interactions.from_pairs(*pairs())
    yield
    seen.save(folder / "seen")


def save_table(folder):
    table = AliasTable(np.arange(1.0, 3_000.0))
    yield
    table.save(folder / "table")


def save_candidates(folder):
    train = fastneg.Interactions.from_pairs(*pairs())
    test = fastneg.Interactions.from_pairs(
        *pairs(1), user_ids=train.user_ids, item_ids=train.item_ids
    )
    candidates = freeze_sampled_candidates(train, test, num_negatives=50)
    yield
    candidates.save(folder / "candidates.npz")


def save_diagnosis(folder):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((900, 4)).astype(np.float32)
    found = diagnose_window(
        vectors, vectors, None, (np.arange(901), np.arange(900)), window=(1, 5),
        buckets=list(range(1, 120)),
    )  # fmt: skip
    yield
    found.save_json(folder / "found.json")


def mine_folder(folder):
    vectors = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    mine_to_folder(vectors, vectors, folder / "warm", window=(1, 20), progress=False)
    yield
    mine_to_folder(vectors, vectors, folder / "job", window=(1, 20), progress=False)


def mine_converted(folder):
    vectors = np.random.default_rng(0).standard_normal((500, 4))
    yield
    mine_to_folder(vectors, vectors, folder / "job", window=(1, 20), progress=False)


def mine_file(folder):
    np.save(folder / "v.npy", np.random.default_rng(0).standard_normal((500, 4)).astype("f4"))
    yield
    options = {"window": (1, 20), "progress": False}
    path = folder / "v.npy"
    mine_command.mine(path, path, None, out=folder / "m.parquet", options=options)


def write_checkpoint(folder):
    yield
    checkpoints.save_checkpoint(
        folder / "c.safetensors", checkpoints.Checkpoint({"a/b": torch.zeros(5_000)})
    )


def write_array(folder):
    yield
    outputs.write_array(folder / "a.npy", np.zeros(5_000))


def write_ids(folder):
    yield
    outputs.write_ids(folder / "ids.parquet", np.arange(5_000) * 7)


def write_json(folder):
    yield
    checkpoints.write_json(folder / "a.json", list(range(5_000)))


WRITERS = [
    save_interactions, save_table, save_candidates, save_diagnosis, mine_folder, mine_converted,
    mine_file, write_checkpoint, write_array, write_ids, write_json,
]  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS, ids=lambda one: one.__name__)
def test_a_full_disk_is_named(writer, tmp_path):
    steps = writer(tmp_path)
    next(steps)
    before = set(tmp_path.rglob("*"))
    with full_disk(), pytest.raises(FastnegError) as caught:
        next(steps, None)
    message = str(caught.value)
    assert "make room there" in message
    assert "None" not in message
    assert "\n" not in message
    assert str(tmp_path) in message
    left = [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]
    assert not [path for path in left if path.stat().st_size >= LIMIT or path.suffix == ".tmp"]


def test_errors_of_the_system_say_why():
    assert "make room there" in system_reason(OSError(errno.ENOSPC, "No space left on device"))
    assert "make room there" in system_reason(OSError("4096 requested and 0 written"))
    assert system_reason(PermissionError(errno.EACCES, "Permission denied")) == "Permission denied"
    assert system_reason(OSError("something else")) == "something else"


def test_arrow_says_that_the_disk_is_full(tmp_path):
    with full_disk(), pytest.raises(OSError) as caught:  # noqa: PT011
        pq.write_table(pa.table({"a": np.random.default_rng(0).random(9_000)}), tmp_path / "t")
    assert "make room there" in system_reason(caught.value)


def test_dev_full():
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    with (
        pytest.raises(OSError, match="No space") as caught,
        Path("/dev/full").open("wb", 0) as file,
    ):
        file.write(b"x")
    assert "make room there" in system_reason(caught.value)
