"""Chunks on threads: all of them once, errors passed on, defaults that behave."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import FastnegError


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


def _chunks(number: int, total: int, smallest: int = 1) -> list[tuple[int, int]]:
    threads.set_num_threads(number)
    seen: list[tuple[int, int]] = []
    threads.run_chunks(lambda i, j: seen.append((i, j)), total, smallest=smallest)
    return sorted(seen)


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(0, 60), st.integers(1, 30))
def test_chunks_cover_everything_once(number: int, total: int, smallest: int) -> None:
    chunks = _chunks(number, total, smallest)
    assert [row for i, j in chunks for row in range(i, j)] == list(range(total))
    assert all(j > i for i, j in chunks)
    assert len(chunks) <= number
    if len(chunks) > 1:
        assert min(j - i for i, j in chunks) >= smallest


def test_small_calls_stay_on_the_calling_thread() -> None:
    threads.set_num_threads(4)
    names: list[str] = []
    threads.run_chunks(lambda i, j: names.append(threading.current_thread().name), 19, smallest=10)
    assert names == [threading.current_thread().name]
    names.clear()
    threads.run_chunks(lambda i, j: names.append(threading.current_thread().name), 40, smallest=10)
    assert len(names) == 4
    assert sum(name.startswith("fastneg") for name in names) == 3


def test_nested_calls_do_not_wait_for_one_another() -> None:
    threads.set_num_threads(7)
    inner: list[tuple[int, int]] = []
    threads.run_chunks(
        lambda i, j: threads.run_chunks(lambda a, b: inner.append((i + a, i + b)), j - i), 300
    )
    assert sorted(row for a, b in inner for row in range(a, b)) == list(range(300))


def test_the_first_error_is_raised_after_every_chunk_has_ended() -> None:
    threads.set_num_threads(3)
    ended: list[int] = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise KeyError("first")
        if stop == 30:
            raise ValueError("last")
        ended.append(start)

    with pytest.raises(KeyError, match="first"):
        threads.run_chunks(work, 30)
    assert ended == [10]
    with pytest.raises(ValueError, match="last"):
        threads.run_chunks(lambda i, j: work(max(i, 1), j), 30)
    assert _chunks(3, 30) == [(0, 10), (10, 20), (20, 30)]  # the pool is still good


def test_defaults_follow_cores_and_torch() -> None:
    assert threads.allowed_cores() == len(os.sched_getaffinity(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert threads.get_num_threads() == 1
        threads.set_num_threads(5)
        assert threads.get_num_threads() == 5
        assert torch.get_num_threads() == 1  # ours never touches theirs
        threads.set_num_threads(None)
        torch.set_num_threads(64)
        assert threads.get_num_threads() == threads.allowed_cores()
    finally:
        torch.set_num_threads(before)


def test_a_worker_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "in_loader_worker", lambda: 2)
    assert threads.get_num_threads() == 1
    threads.set_num_threads(3)
    assert threads.get_num_threads() == 3


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2"])
def test_bad_numbers(number: object) -> None:
    with pytest.raises(FastnegError, match=r"set_num_threads: num_threads = .*1 or more, or None"):
        threads.set_num_threads(number)


def test_a_forked_child_forgets_the_pool() -> None:
    _chunks(2, 10)
    assert threads._pool is not None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fine = threads._pool is None and _chunks(3, 9) == [(0, 3), (3, 6), (6, 9)]
            os.write(writer, b"1" if fine else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)
