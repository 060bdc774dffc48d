from __future__ import annotations

import threading

import pytest

from fastneg.training.ahead import ahead


def test_it_is_map() -> None:
    assert list(ahead(range(7), str)) == [str(number) for number in range(7)]
    assert list(ahead([], str)) == []
    assert list(ahead([None, None], lambda item: item)) == [None, None]


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    taken, made = [], threading.Semaphore(0)

    def source():
        for number in range(3):
            taken.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    def make(number: int) -> int:
        made.release()
        return -number

    batches = ahead(source(), make)
    assert next(batches) == 0
    assert made.acquire(timeout=10)
    assert made.acquire(timeout=10)  # before it is asked for
    assert not made.acquire(timeout=0.1)  # and no further one
    assert taken == [(0, False), (1, False)]
    assert list(batches) == [-1, -2]


def test_what_is_raised_is_raised_in_its_place() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    batches = ahead(range(5), make)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(batches)
    assert list(batches) == []

    def source():
        yield 1
        raise RuntimeError("a worker ended")

    batches = ahead(source(), int)
    assert next(batches) == 1
    with pytest.raises(RuntimeError, match="a worker ended"):
        next(batches)


def test_closing_it_ends_the_thread() -> None:
    before = threading.active_count()
    batches = ahead(range(100), int)
    assert next(batches) == 0
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before
