from __future__ import annotations

import threading

import pytest

from fastneg.training.ahead import ahead

SMALL, LARGE = (lambda made: 1), (lambda made: 1 << 30)


@pytest.mark.parametrize("size", [SMALL, LARGE, lambda made: 700_000])
def test_it_is_map(size) -> None:
    for count in (0, 1, 2, 3, 15, 16, 17, 33):
        assert list(ahead(range(count), str, size)) == [str(number) for number in range(count)]
    assert list(ahead([None, None], lambda item: item, size)) == [None, None]


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    taken, made = [], threading.Semaphore(0)

    def source():
        for number in range(3):
            taken.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    def make(number: int) -> int:
        made.release()
        return -number

    batches = ahead(source(), make, LARGE)
    assert next(batches) == 0
    assert made.acquire(timeout=10)
    assert made.acquire(timeout=10)  # before it is asked for
    assert not made.acquire(timeout=0.1)  # and no further one
    assert taken == [(0, False), (1, False)]
    assert list(batches) == [-1, -2]


def test_small_ones_are_made_several_in_a_row() -> None:
    made = []

    def make(number: int) -> int:
        made.append(number)
        return number

    batches = ahead(range(100), make, lambda number: (4 << 20) if number < 4 else 1)
    assert next(batches) == 0
    batches.close()
    assert made == [0, 1, 2, 3]  # two turns, 8 MB each
    made.clear()
    batches = ahead(range(100), make, SMALL)
    next(batches)
    batches.close()
    assert made == list(range(32))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_is_raised_is_raised_in_its_place(size) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    batches = ahead(range(5), make, size)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(batches)
    assert list(batches) == []

    def source():
        yield 1
        raise RuntimeError("a worker ended")

    batches = ahead(source(), int, size)
    assert next(batches) == 1
    with pytest.raises(RuntimeError, match="a worker ended"):
        next(batches)


def test_closing_it_ends_the_thread() -> None:
    before = threading.active_count()
    batches = ahead(range(100), int, SMALL)
    assert next(batches) == 0
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before
