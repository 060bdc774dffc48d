"""The caller's memory during a call: ``out`` over an input, writes by another thread."""

from __future__ import annotations

import array
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers import lean
from fastneg.samplers.uniform import UniformSampler

SEEN = Interactions.from_codes([0, 1], [0, 1], num_users=64, num_items=64)


class Interface:
    """An object whose memory NumPy finds by ``__array_interface__`` alone."""

    def __init__(self, held: np.ndarray) -> None:
        self.held, self.__array_interface__ = held, held.__array_interface__


class Method:
    """One that gives an array when it is asked for one."""

    def __init__(self, held: np.ndarray) -> None:
        self.held = held

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.held


HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "ndarray": lambda a: a,
    "slice": lambda a: a[:],
    "int32 view": lambda a: a.view(np.int32)[: len(a)],
    "tensor": torch.from_numpy,
    "memoryview": memoryview,
    "memoryview of a tensor": lambda a: memoryview(torch.from_numpy(a).numpy()),
    "arrow": pa.array,
    "arrow chunks": lambda a: pa.chunked_array([pa.array(a[:8]), pa.array(a[8:])]),
    "pandas": lambda a: pd.Series(a, copy=False),
    "polars": lambda a: pl.from_arrow(pa.array(a)),
    "interface": Interface,
    "method": Method,
    "dlpack": np.from_dlpack,
}


@pytest.mark.parametrize("argument", ["users", "positives", "rows", "times", "exclude", "part"])
@pytest.mark.parametrize("kind", HOLDERS)
def test_out_over_an_input_is_noticed(kind: str, argument: str) -> None:
    block = np.zeros(16, np.int64)
    held = HOLDERS[kind](block)
    inputs: dict[str, Any] = {"users": np.zeros(16, np.int64)}
    if argument == "exclude":
        inputs["exclude"] = (np.zeros(17, np.int64), np.zeros(0, np.int64))
        if kind in ("slice", "ndarray", "memoryview", "interface", "method", "dlpack"):
            whole = np.zeros(17, np.int64)
            inputs["exclude"] = (HOLDERS[kind](whole), np.zeros(0, np.int64))
            block = whole[:16]
        else:
            inputs["exclude"] = (np.arange(17), held)
    elif argument == "part":
        inputs["exclude"] = [held] + [[] for _ in range(15)]
    else:
        inputs[argument] = held
    out = (block.reshape(16, 1), np.empty((16, 1), np.float32), np.empty((16, 1), np.int8))
    sampler = UniformSampler(SEEN)
    with pytest.raises(FastnegError, match=r"UniformSampler\.sample: out\.items overlaps another"):
        sampler.sample(num_negatives=1, out=out, **inputs)
    assert sampler.state_dict()["next_row"] == 0
    apart = (np.zeros((16, 1), np.int64), *out[1:])
    sampler.sample(num_negatives=1, out=apart, **inputs)


def test_out_over_python_arrays_is_noticed() -> None:
    block = array.array("q", [0] * 16)
    items = np.frombuffer(block, np.int64).reshape(16, 1)
    assert items.flags.writeable
    out = (items, np.empty((16, 1), np.float32), np.empty((16, 1), np.int8))
    with pytest.raises(FastnegError, match="overlaps"):
        UniformSampler(SEEN).sample(block, 1, out=out)


@pytest.mark.parametrize("width", [1, 40])
@pytest.mark.parametrize("with_rows", [False, True])
def test_what_is_written_after_the_check_is_not_read(
    width: int, with_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread, in slow motion: as soon as codes were checked, the caller's are others."""
    users, rows = np.arange(30), np.arange(30) if with_rows else None
    wanted = UniformSampler(SEEN).sample(users.copy(), width, rows=rows).items
    honest = lean.codes_within

    def then_write(codes: Any, low: int, size: int) -> bool:
        good = honest(codes, low, size)
        if size == 64:
            users[:] = 2**50
        elif rows is not None:
            rows[:] = -5
        return bool(good)

    monkeypatch.setattr(lean, "codes_within", then_write)
    monkeypatch.setattr(lean, "WIDE", 0)  # what the kernel of small requests does inside itself
    assert torch.equal(UniformSampler(SEEN).sample(users, width, rows=rows).items, wanted)
    assert int(users[0]) == 2**50


_RACE = """
import sys, threading
import numpy as np
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
g = np.random.default_rng(0)
users, items = g.integers(0, 500, 5000), g.integers(0, 300, 5000)
seen = Interactions.from_codes(users, items, num_users=500, num_items=300)
asked = g.integers(0, 500, 4096)
asked %= 300
good, bad = asked.copy(), np.full(4096, 2**50)
stop = False
def write():
    while not stop:
        np.copyto(asked, bad)
        np.copyto(asked, good)
threading.Thread(target=write, daemon=True).start()
for sampler in (UniformSampler(seen), PopularitySampler(seen)):
    for width in (1, 40):
        for argument in ("users", "exclude"):
            for _ in range(600 if width == 1 else 30):
                try:
                    if argument == "users":
                        drawn = sampler.sample(asked, width).items
                    else:
                        lists = (np.arange(4097), asked)
                        drawn = sampler.sample(good, width, exclude=lists).items
                except FastnegError:
                    continue
                assert 0 <= int(drawn.min()) and int(drawn.max()) < 300
stop = True
"""


def test_another_thread_that_writes_crashes_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _RACE], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
