"""A number that workers see: forked, spawned, from a fork server; what they set is their own."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from typing import Any

import pytest

from fastneg.shared import SharedNumber

WAYS = ["fork", "spawn", "forkserver"]


def _follow(number: SharedNumber, pipe: Any) -> None:
    """Set what is sent, or nothing; answer with the number as it is."""
    while (wanted := pipe.recv()) != "end":
        if wanted is not None:
            number.set(wanted)
        pipe.send(number.get())


class Worker:
    def __init__(self, way: str, number: SharedNumber) -> None:
        context = multiprocessing.get_context(way)
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_follow, args=(number, other))
        self.process.start()

    def ask(self, wanted: int | None = None) -> int:
        self.pipe.send(wanted)
        assert self.pipe.poll(60)
        return self.pipe.recv()

    def end(self) -> None:
        self.pipe.send("end")
        self.process.join(60)
        assert self.process.exitcode == 0


@pytest.mark.parametrize("way", WAYS)
def test_workers_see_what_is_set_and_keep_what_they_set(way: str) -> None:
    number = SharedNumber(3)
    first, second = Worker(way, number), Worker(way, number)
    assert [first.ask(), second.ask()] == [3, 3]
    number.set(4)
    assert [first.ask(), second.ask()] == [4, 4]
    assert first.ask(11) == 11  # a worker's own
    assert [number.get(), second.ask(), first.ask()] == [4, 4, 11]
    number.set(4)  # the same again: it is the latest
    assert first.ask() == 4
    assert first.ask(12) == 12
    third = Worker(way, number)  # a worker that starts later
    number.set(5)
    assert [first.ask(), second.ask(), third.ask(), number.get()] == [5] * 4
    for worker in (first, second, third):
        worker.end()


def _with_a_worker(number: SharedNumber, pipe: Any) -> None:
    """A rank: started by a launcher, with a worker of its own."""
    number.set(20)
    worker = Worker("fork", number)
    seen = [worker.ask()]
    number.set(21)
    seen.append(worker.ask())
    worker.end()
    pipe.send([*seen, number.get()])


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_was_started_has_workers_too(way: str) -> None:
    number = SharedNumber(1)
    context = multiprocessing.get_context(way)
    pipe, other = context.Pipe()
    process = context.Process(target=_with_a_worker, args=(number, other))
    process.start()
    assert pipe.poll(60)
    assert pipe.recv() == [20, 21, 21]
    process.join(60)
    assert number.get() == 1


def test_copies_hold_the_value() -> None:
    number = SharedNumber(2**62)
    copies = [pickle.loads(pickle.dumps(number)), copy.deepcopy(number)]  # noqa: S301
    number.set(1)
    assert [one.get() for one in copies] == [2**62] * 2
    copies[0].set(9)
    assert [number.get(), copies[1].get()] == [1, 2**62]


def test_no_file_is_kept_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    numbers = [SharedNumber(k) for k in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    worker = Worker("spawn", numbers[0])
    assert worker.ask() == 0
    worker.end()
    del worker, numbers
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208  (spawn keeps a tracker)
