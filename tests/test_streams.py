"""Keys from seeds, names and epochs; words for NumPy; rows handed out once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg import streams
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square, kolmogorov

GOLDEN = 0x9E3779B97F4A7C15


@given(st.integers(0, 2**64 - 1))
def test_mix64(x: int) -> None:
    assert streams.mix64(x) == naive.mix64(x)
    assert streams.mix64(x + 2**64) == naive.mix64(x)


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_keys_are_the_formula_modulo_2_64(seed: int, stream: int, epoch: int) -> None:
    key = naive.mix64((seed + GOLDEN) % 2**64)
    key = naive.mix64(key ^ stream)
    assert streams.key_of(seed, stream, epoch) == naive.mix64((key + epoch * GOLDEN) % 2**64)
    assert streams.key_of(seed + 2**64, stream, epoch) == streams.key_of(seed, stream, epoch)


def test_keys_differ() -> None:
    keys = {
        streams.key_of(seed, streams.stream_of(name), epoch)
        for seed in range(-10, 10)
        for name in ("a", "b", "", "uniform", "popularity")
        for epoch in range(20)
    }
    assert len(keys) == 20 * 5 * 20


def test_streams_are_a_hash_of_the_path_with_lengths() -> None:
    digest = hashlib.blake2b(digest_size=8)
    for name in ("mixed", "0", "ü"):
        digest.update(len(name.encode()).to_bytes(8, "little") + name.encode())
    assert streams.stream_of("mixed", "0", "ü") == int.from_bytes(digest.digest(), "little")
    paths = [("ab",), ("a", "b"), ("", "ab"), ("ab", ""), ("b", "a"), ()]
    assert len({streams.stream_of(*path) for path in paths}) == len(paths)


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1, 2**63, 123456789])
def test_words_are_splitmix(key: int) -> None:
    words = streams.uniform_words(key, 50)
    assert words.dtype == np.uint64
    assert words.tolist() == [naive.mix64((key + (i + 1) * GOLDEN) % 2**64) for i in range(50)]
    np.testing.assert_array_equal(streams.uniform_words(key, 20, start=30), words[30:])
    assert streams.uniform_words(key, 0).shape == (0,)


def test_unit_interval_is_open_and_uniform() -> None:
    ends = streams.unit_interval(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert ends.tolist() == [2.0**-54, 1 - 2.0**-53]
    values = streams.unit_interval(streams.uniform_words(5, 50_000))
    assert kolmogorov(values, lambda x: x) > LEVEL
    assert kolmogorov(values**1.05, lambda x: x) < LEVEL


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1000, 70_001])
def test_a_permutation_is_the_order_of_its_words(size: int) -> None:
    expected = np.argsort(streams.uniform_words(9, size), kind="stable")
    np.testing.assert_array_equal(streams.permutation(9, size), expected)


@pytest.mark.parametrize("shift", [0, 5, 50])
def test_words_that_are_nearly_alike(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They differ in the bits alone that places take, or in some of those besides."""
    words = np.random.default_rng(1).permutation(300).astype(np.uint64) << np.uint64(shift)
    monkeypatch.setattr(streams, "uniform_words", lambda key, size: words.copy())
    order = streams.permutation(9, 300)
    assert order.dtype == np.int64
    assert (np.diff(words[order].astype(np.int64)) > 0).all()


def test_permutations() -> None:
    for size in (0, 1, 2, 1000):
        order = streams.permutation(9, size)
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(size))
    assert streams.permutation(9, 12).tolist() != streams.permutation(10, 12).tolist()
    assert streams.permutation(9, 12).tolist() == PERMUTATION
    codes = [
        int(order[0]) * 24 + int(order[1]) * 6 + int(order[2])
        for order in (streams.permutation(key, 4) for key in range(15_000))
    ]
    _, ids = np.unique(codes, return_inverse=True)
    assert_follows(ids, np.full(24, 1 / 24))


PERMUTATION = [5, 11, 8, 4, 2, 10, 6, 0, 1, 3, 9, 7]


def test_every_row_is_handed_out_once() -> None:
    counter = streams.RowCounter(5)
    firsts: list[tuple[int, int]] = []

    def take(size: int) -> None:
        firsts.extend((counter.reserve(size), size) for _ in range(500))

    workers = [threading.Thread(target=take, args=(size,)) for size in (1, 2, 7)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = [first + i for first, size in firsts for i in range(size)]
    assert sorted(taken) == list(range(5, 5 + 500 * 10))
    assert counter.next_row == 5 + 500 * 10
    assert pickle.loads(pickle.dumps(counter)).next_row == counter.next_row  # noqa: S301


class Info:
    """torch's facts of a DataLoader worker."""

    def __init__(self, worker: int, seed: int) -> None:
        self.id, self.seed, self.num_workers = worker, seed, 4


def test_workers_that_make_their_counter_differ_by_number_and_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    firsts = []
    for info in (None, Info(0, 10), Info(1, 11), Info(0, 20), Info(0, 10)):
        monkeypatch.setattr(streams, "loader_worker", lambda info=info: info)
        counter = streams.RowCounter(3)
        rows = [counter.reserve(10), counter.reserve(1)]
        assert rows[1] == rows[0] + 10
        assert counter.next_row == 14  # the state is the worker's own count
        firsts.append(rows[0])
    assert firsts[0] == 3
    assert firsts[4] == firsts[1]
    assert len(set(firsts)) == 4
    assert all(0 <= first < 2**62 + 3 for first in firsts)


@pytest.mark.parametrize("worker", [None, 0, 3])
def test_rows_given_back_are_given_again(
    worker: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = None if worker is None else Info(worker, 7)
    monkeypatch.setattr(streams, "loader_worker", lambda: info)
    counter = streams.RowCounter(3)
    first = counter.reserve(10)
    counter.give_back(first, 10)
    assert counter.reserve(10) == first
    other = counter.reserve(5)
    counter.give_back(first, 10)  # too late: these rows would come twice
    assert counter.next_row == 18
    counter.give_back(other, 5)
    assert counter.next_row == 13


def _first_rows(counter: streams.RowCounter, queue: Any, deep: bool) -> None:
    rows = [counter.reserve(5), counter.reserve(5), streams.RowCounter().reserve(1)]
    if deep:  # what this process starts in its turn
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_first_rows, args=(counter, queue, False))
        process.start()
        process.join()
    queue.put(rows)


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_every_process_has_rows_of_its_own(way: str) -> None:
    context = multiprocessing.get_context(way)
    queue = context.Queue()
    counter = streams.RowCounter(100)
    for _ in range(3):
        process = context.Process(target=_first_rows, args=(counter, queue, True))
        process.start()
        process.join()
    found = [queue.get(timeout=60) for _ in range(6)]
    firsts = [counter.reserve(5), *(rows[0] for rows in found)]
    assert len(set(firsts)) == 7
    gaps = np.diff(np.sort(firsts))
    assert gaps.min() > 1000
    assert all(rows[1] == rows[0] + 5 for rows in found)
    assert all(rows[2] == 0 for rows in found)  # made there: the process is alone with it


def _reserve(counter: streams.RowCounter) -> int:
    return counter.reserve(5)


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_copies_that_a_pool_is_sent_differ(way: str) -> None:
    counter = streams.RowCounter()
    with multiprocessing.get_context(way).Pool(2) as pool:
        firsts = [pool.apply(_reserve, (counter,)) for _ in range(4)]
    assert len({*firsts, counter.reserve(5)}) == 5


_PROGRAM = """
import multiprocessing, pickle, sys
from fastneg.streams import RowCounter

def take(counter, queue):
    queue.put(counter.reserve(1))

counter = RowCounter()
context = multiprocessing.get_context("fork")
queue = context.Queue()
for _ in range(2):
    process = context.Process(target=take, args=(counter, queue))
    process.start()
    process.join()
    print(queue.get())
print(pickle.loads(pickle.dumps(counter)).reserve(1), counter.reserve(1))
"""


def _run(program: str, **variables: str) -> list[int]:
    known = {key: value for key, value in os.environ.items() if key not in LAUNCHERS}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**known, **variables},
    )  # fmt: skip
    return [int(word) for word in done.stdout.split()]


LAUNCHERS = {name for pair in streams._LAUNCHERS for name in pair}


def test_a_program_that_runs_again_gives_the_same_rows() -> None:
    once = _run(_PROGRAM)
    assert once == _run(_PROGRAM)
    assert once[2:] == [0, 0]
    assert len(set(once[:2])) == 2


@pytest.mark.parametrize("names", streams._LAUNCHERS)
def test_ranks_are_known_from_the_launcher(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    assert streams.rank_here() == 0
    firsts = []
    for rank in range(3):
        monkeypatch.setenv(names[0], str(rank))
        monkeypatch.setenv(names[1], "3")
        assert streams.rank_here() == rank
        firsts.append(streams.RowCounter(5).reserve(1))
    assert firsts[0] == 5  # the first rank draws what one process alone draws
    assert len(set(firsts)) == 3
    monkeypatch.setenv(names[1], "1")
    assert streams.rank_here() == 0
    monkeypatch.setenv(names[1], "several")
    assert streams.rank_here() == 0


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "asked"])
def test_a_group_comes_before_the_launcher(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import distributed

    for name, value in (("RANK", "2"), ("WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    if not watched:  # a torch that keeps its group elsewhere
        monkeypatch.setattr(streams, "_process_groups", lambda: None)
    counter = streams.RowCounter()
    second = counter.reserve(1)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert counter.reserve(1) == 1  # groups are joined late
        monkeypatch.setattr(distributed, "get_rank", lambda: 1)
        assert streams.RowCounter().reserve(1) not in (0, second)
    finally:
        distributed.destroy_process_group()
    assert counter.reserve(1) == second + 2


def test_the_check_sees_a_bad_mixer() -> None:
    weak = (np.arange(50_000, dtype=np.uint64) * np.uint64(GOLDEN)) >> np.uint64(56)
    assert chi_square(weak[1:] ^ weak[:-1], np.full(256, 1 / 256)) < LEVEL
