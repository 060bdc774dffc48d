"""Kernels on torch's threads: which threads do the work, and what is done without them."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy._core import _multiarray_umath

from fastneg import threads
from fastneg.kernels.jit import kernel
from fastneg.training import team
from fastneg.training.team import OnTeam

needs_team = pytest.mark.skipif(not team._entry(), reason="torch has no OpenMP runtime of GNU's")


@kernel
def add_one(values, start, stop):
    for row in range(start, stop):
        values[row] += 1


class Watched(OnTeam):
    """Says who worked: "team", with its threads, or the rows of each call."""

    def __init__(self) -> None:
        super().__init__(add_one)
        spread, self.seen = self._spread, []

        def watch_team(address, number, *rest):
            self.seen.append(("team", number))
            return spread(address, number, *rest)

        def watch_rows(values, start, stop):
            self.seen.append((start, stop))
            add_one(values, start, stop)

        self._spread, self._work = watch_team, watch_rows


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    threads.set_num_threads(None)


def run(rows: int = 100, chunk: int = 3, start: int = 5) -> list:
    watched, values = Watched(), np.zeros(rows + start + 7, np.int64)
    watched(values, start=start, stop=start + rows, chunk=chunk)
    expected = np.zeros_like(values)
    expected[start : start + rows] = 1
    assert np.array_equal(values, expected)
    return sorted(watched.seen)


@needs_team
def test_more_than_a_chunk_goes_to_the_team():
    assert run(chunk=99) == [("team", 2)]


@needs_team
def test_the_team_has_torchs_threads_however_little_there_is():
    torch.set_num_threads(3)
    threads.set_num_threads(8)
    assert run(chunk=99) == [("team", 3)]


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_a_chunk_or_less_stays_here(rows):
    assert run(rows, chunk=100) == ([(5, 5 + rows)] if rows else [])


def test_fewer_threads_than_torchs_are_fastnegs_own():
    torch.set_num_threads(4)
    threads.set_num_threads(1)
    assert run() == [(5, 105)]
    threads.set_num_threads(2)
    assert run(chunk=1) == [(5, 55), (55, 105)]


def test_one_thread_of_torchs_is_this_one():
    torch.set_num_threads(1)
    threads.set_num_threads(None)
    assert run() == [(5, 105)]


@needs_team
def test_a_chunk_of_our_own_pool_is_not_shared_again():
    seen = []
    threads.run_chunks(lambda i, j: seen.append(run()), 2)
    # the thread that calls is torch's own; the pool's is not
    assert {tuple(one) for one in seen} == {(("team", 2),), ((5, 105),)}


def test_without_an_openmp_runtime_the_work_is_done(monkeypatch):
    monkeypatch.setattr(team, "_address", 0)
    assert run(chunk=1) == [(5, 55), (55, 105)]
    assert run(chunk=7) == [(5, 105)]  # too little to wake a thread for


LIB = Path(torch.__file__).parent / "lib"


@pytest.mark.skipif(not list(LIB.glob("libgomp*")), reason="torch brings no libgomp")
def test_the_runtime_that_torch_brings_is_found():
    assert team._find_entry() != 0


@needs_team
def test_a_library_without_the_entry_is_no_team(monkeypatch, tmp_path):
    load = ctypes.CDLL

    def of_torch_only(name, **options):
        if name is None:
            raise OSError("nothing is loaded for all")
        return load(name, **options)

    monkeypatch.setattr(ctypes, "CDLL", of_torch_only)
    assert team._find_entry() == team._entry()
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert team._find_entry() == 0
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libtorch_cpu.so"
    library.write_bytes(b"no library")
    assert team._find_entry() == 0
    library.unlink()
    library.symlink_to(_multiarray_umath.__file__)  # loaded, and no OpenMP
    assert team._find_entry() == 0


def test_a_system_that_loads_otherwise_is_no_team(monkeypatch):
    monkeypatch.delattr(os, "RTLD_NOLOAD", raising=False)
    assert team._find_entry() == 0


@needs_team
def test_memory_that_runs_out_is_an_error():
    @kernel
    def need(sizes, out, start, stop):
        for row in range(start, stop):
            out[row] = np.empty(sizes[row], np.uint8).size

    sizes = np.ones(8, np.int64)
    sizes[3] = 1 << 60
    with pytest.raises(MemoryError, match="need: no memory for 2 rows"):
        OnTeam(need)(sizes, np.zeros(8, np.int64), start=0, stop=8, chunk=2)


@needs_team
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_no_team():
    assert run() == [("team", 2)]
    child = os.fork()
    if child == 0:  # a wrong answer would be a hang: the alarm ends it
        right = False
        try:
            signal.alarm(20)
            right = run(chunk=1) == [(5, 55), (55, 105)]
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert run() == [("team", 2)]


@needs_team
def test_several_callers_at_a_time_get_what_they_asked_for():
    errors = []

    def work():
        try:
            for _ in range(50):
                assert run() == [("team", 2)]
        except BaseException as error:  # noqa: BLE001  (looked at below)
            errors.append(error)

    callers = [threading.Thread(target=work) for _ in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join(60)
    assert not errors
    assert not any(one.is_alive() for one in callers)
