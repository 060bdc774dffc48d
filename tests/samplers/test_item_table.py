"""What tables of items share: drawing into the caller's arrays, running sums, memory."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastneg import threads
from fastneg.errors import FastnegError
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.count_classes import CountClassTable, find_classes
from fastneg.samplers.item_table import ItemTable, check_buffers
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler

COUNTS = np.random.default_rng(1).permutation(np.floor(90 / np.arange(1, 61)))


def _classed(**options: Any) -> CountClassTable:
    classes = find_classes(COUNTS, always=True)
    assert classes is not None
    return CountClassTable(classes, classes.values, **options)


TABLES: dict[str, Callable[..., ItemTable]] = {
    "alias": lambda **options: AliasTable(COUNTS, **options),
    "classes": _classed,
}
each_table = pytest.mark.parametrize("name", TABLES)


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


# ------------------------------------------------------------------ drawing


@each_table
@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_log_probabilities_are_of_what_was_drawn(name: str, count: int) -> None:
    table = TABLES[name](seed=3)
    items, log_q = table.draw(count, row=5, log_q=True)
    assert torch.equal(items, table.draw(count, row=5))
    assert (items.dtype, log_q.dtype) == (torch.int64, torch.float32)
    np.testing.assert_array_equal(log_q, table.log_q[items].astype(np.float32))


@each_table
def test_draws_fill_the_arrays_of_the_caller(name: str, tmp_path: Path) -> None:
    table, twin = TABLES[name](seed=3), TABLES[name](seed=3)
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.int64, (70,))
    wide = np.full((3, 70), -1)
    for row, out in enumerate([
        np.empty(70, np.int64), torch.empty(70, dtype=torch.int64), mapped, wide[1],
    ]):  # fmt: skip
        assert table.draw(70, out=out) is out
        assert np.asarray(out).tolist() == twin.draw(70, row=row).tolist()
    assert (wide[[0, 2]] == -1).all()
    for row, out in enumerate([
        (np.empty(70, np.int64), np.empty(70, np.float32)),
        (torch.empty(70, dtype=torch.int64), torch.empty(70)),
        (np.empty(70, np.int64), torch.empty(70)),
    ]):  # fmt: skip
        assert table.draw(70, row=row, log_q=True, out=out) is out
        for ours, theirs in zip(out, twin.draw(70, row=row, log_q=True), strict=True):
            assert np.asarray(ours).tolist() == theirs.tolist()


@each_table
def test_arrays_are_filled_alike_at_any_number_of_threads(name: str) -> None:
    table = TABLES[name]()
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        out = np.empty(100_003, np.int64), np.empty(100_003, np.float32)
        table.draw(100_003, row=2, log_q=True, out=out)
        drawn.append(out)
    for items, log_q in drawn[1:]:
        np.testing.assert_array_equal(items, drawn[0][0])
        np.testing.assert_array_equal(log_q, drawn[0][1])
    np.testing.assert_array_equal(drawn[0][0][:500], table.draw(500, row=2))
    np.testing.assert_array_equal(drawn[0][1], table.log_q[drawn[0][0]].astype(np.float32))


def _read_only() -> np.ndarray:
    array = np.zeros(6, np.int64)
    array.setflags(write=False)
    return array


def _misaligned() -> np.ndarray:
    return np.frombuffer(bytearray(49), np.uint8)[1:].view(np.int64)


BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "int32": (np.zeros(6, np.int32), r"out.items \(int32, shape \(6,\)\) should be \(int64, shape"),
    "uint64": (np.zeros(6, np.uint64), r"out.items \(uint64"),
    "big-endian": (np.zeros(6, ">i8"), r"out.items \(>i8"),
    "float tensor": (torch.zeros(6), r"out.items \(float32"),
    "too long": (np.zeros(7, np.int64), r"shape \(7,\)\) should be \(int64, shape \(6,\)\)"),
    "too short": (np.zeros(5, np.int64), r"shape \(5,\)\) should be"),
    "a column": (np.zeros((6, 1), np.int64), r"shape \(6, 1\)\) should be"),
    "read-only": (_read_only(), "out.items is not C-contiguous, aligned and writable"),
    "strided": (np.zeros(12, np.int64)[::2], "is not C-contiguous"),
    "backwards": (np.zeros(6, np.int64)[::-1], "is not C-contiguous"),
    "one place for all": (torch.zeros(1, dtype=torch.int64).expand(6), "is not C-contiguous"),
    "misaligned": (_misaligned(), "aligned"),
    "a list": ([0] * 6, "out.items is a list, not an array"),
    "a pair": ((np.zeros(6, np.int64), np.zeros(6, np.float32)), "out.items is a tuple, not"),
    "elsewhere": (torch.zeros(6, dtype=torch.int64, device="meta"), "out.items is on meta"),
}  # fmt: skip


@each_table
@pytest.mark.parametrize("bad", BAD_ITEMS)
def test_arrays_that_cannot_be_filled(name: str, bad: str) -> None:
    table = TABLES[name]()
    out, message = BAD_ITEMS[bad]
    with pytest.raises(FastnegError, match=rf"^{type(table).__name__}.draw: .*{message}"):
        table.draw(6, out=out)
    assert table._counter.next_row == 0
    if bad != "a pair":
        with pytest.raises(FastnegError, match=message):
            table.draw(6, log_q=True, out=(out, np.zeros(6, np.float32)))


def _bad_pairs() -> dict[str, tuple[Any, str]]:
    shared = np.zeros(6, np.int64)
    items = np.zeros(6, np.int64)
    return {
        "one array": (items, "out should be a tuple of items, log_q"),
        "a list": ([items, np.zeros(6, np.float32)], "out should be a tuple of items, log_q"),
        "three": ((items, np.zeros(6, np.float32), items), "out should be a tuple"),
        "no log_q": ((items, None), r"out.log_q is None; give an array of shape \(6,\), float32"),
        "no items": ((None, np.zeros(6, np.float32)), "out.items is None"),
        "float64": ((items, np.zeros(6)), r"out.log_q \(float64"),
        "another length": ((items, np.zeros(5, np.float32)), r"out.log_q .* shape \(5,\)"),
        "the same memory": ((shared, shared.view(np.float32)[:6]), "out.log_q overlaps"),
        "the end of it": ((shared, shared.view(np.float32)[6:]), "out.log_q overlaps"),
        "strided": ((items, np.zeros(12, np.float32)[::2]), "out.log_q is not C-contiguous"),
    }


@each_table
@pytest.mark.parametrize("bad", _bad_pairs())
def test_pairs_that_cannot_be_filled(name: str, bad: str) -> None:
    table = TABLES[name]()
    out, message = _bad_pairs()[bad]
    with pytest.raises(FastnegError, match=message):
        table.draw(6, log_q=True, out=out)
    assert table._counter.next_row == 0


def test_neighbours_in_one_buffer_do_not_overlap() -> None:
    whole = np.zeros(9, np.int64)
    items, log_q = whole[:6], whole[6:].view(np.float32)
    table = AliasTable(COUNTS)
    table.draw(6, row=1, log_q=True, out=(items, log_q))
    expected = table.draw(6, row=1, log_q=True)
    assert items.tolist() == expected[0].tolist()
    assert log_q.tolist() == expected[1].tolist()
    inside = whole[2:5]
    with pytest.raises(FastnegError, match=r"call: out.items overlaps another argument"):
        check_buffers((items,), ("items",), (6,), inputs=[inside], call="call")
    assert check_buffers((items,), ("items",), (6,), inputs=[whole[6:]], call="call")[0] is items


# ------------------------------------------------------------------ one row for a whole batch

SHARED: dict[str, Callable[..., Any]] = {
    "uniform": lambda: UniformSampler(60, seed=2),
    "popularity": lambda: PopularitySampler(COUNTS, seed=2),
    "distinct": lambda: PopularitySampler(COUNTS, seed=2, replacement=False),
}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("count", [1, 40])
def test_shared_draws_fill_the_arrays_of_the_caller(name: str, count: int) -> None:
    sampler, twin = SHARED[name](), SHARED[name]()
    for log_q, as_tensor in itertools.product([True, False], [True, False]):
        arrays = [
            np.empty(count, np.int64),
            np.empty(count, np.float32),
            np.full(count, 9, np.int8),
        ]
        out = tuple(map(torch.from_numpy, arrays)) if as_tensor else tuple(arrays)
        given = out if log_q else (out[0], None, out[2])
        drawn = sampler.sample_shared(count, log_q=log_q, out=given)
        expected = twin.sample_shared(count, log_q=log_q)
        assert all(ours is theirs for ours, theirs in zip(drawn, given, strict=True))
        assert arrays[0].tolist() == expected.items.tolist()
        assert arrays[2].tolist() == [0] * count
        if log_q:
            assert arrays[1].tolist() == expected.log_q.tolist()
    assert sampler._counter.next_row == twin._counter.next_row == 4


@pytest.mark.parametrize("name", SHARED)
def test_shared_draws_refuse_bad_arrays(name: str) -> None:
    sampler = SHARED[name]()
    log_q, source = np.zeros(6, np.float32), np.zeros(6, np.int8)
    for bad, (out, message) in BAD_ITEMS.items():
        if bad != "a pair":
            with pytest.raises(FastnegError, match=rf"Sampler.sample_shared: .*{message}"):
                sampler.sample_shared(6, out=(out, log_q, source))
    items = np.zeros(6, np.int64)
    for given, message in [
        ((items, log_q), r"out must be a Negatives\(items, log_q, source\)"),
        ((items, None, source), "out.log_q is None"),
        ((items, log_q, None), "out.source is None"),
        ((items, log_q, np.zeros(6, np.uint8)), r"out.source \(uint8"),
        ((items, log_q, items.view(np.int8)[:6]), "out.source overlaps"),
        ((items[None], log_q, source), r"shape \(1, 6\)\) should be \(int64, shape \(6,\)\)"),
    ]:
        with pytest.raises(FastnegError, match=message):
            sampler.sample_shared(6, out=given)
    with pytest.raises(FastnegError, match=r"out\.log_q is given although log_q=False"):
        sampler.sample_shared(6, log_q=False, out=(items, log_q, source))
    assert sampler._counter.next_row == 0


# ------------------------------------------------------------------ sums, memory, pickles


@pytest.mark.parametrize("size", [1, 37, 60, 4095, 4096, 10_000])
def test_running_sums_fit_the_budget(size: int) -> None:
    table = AliasTable(np.arange(1.0, size + 1))
    before = np.concatenate([[0], np.cumsum(table.masses)[:-1]])
    for budget in [0, 7, 8, 16, 24, 8 * (size // 2 + 1), 8 * size + 7, 8 * size + 8, 1 << 40]:
        starts, stride = table.running_sums(budget)
        np.testing.assert_array_equal(starts, before[::stride])
        assert stride in [1 << k for k in range(13)]
        # the smallest power of 2 that fits: half of it would not
        assert stride == 4096 or 8 * (size // stride + 1) <= budget
        assert stride == 1 or 8 * (size // (stride // 2) + 1) > budget
        assert starts.nbytes <= budget or stride == 4096
        assert not starts.flags.writeable
        assert table.running_sums(budget)[0] is starts


@each_table
def test_memory_counts_what_was_made(name: str) -> None:
    table = TABLES[name]()
    arrays = {part: array.nbytes for part, array in table.arrays().items()}
    assert table.memory() == arrays
    assert table.draw(3).shape == (3,)
    assert table.memory() == arrays  # plain draws need nothing more
    table.draw(3, log_q=True)
    entries = {"entries": 960} if name == "alias" else {}
    assert table.memory().items() >= {**arrays, **entries}.items()
    table.running_sums(8 * 16)
    held = {**arrays, **entries, "masses": 480, "starts": 8 * 15}
    assert table.memory().items() >= held.items()
    assert table.log_q.nbytes == 480
    assert table.memory() == {**held, "log_q": 480}
    copied = pickle.loads(pickle.dumps(table))  # noqa: S301
    assert copied.memory() == arrays  # what can be made again is not carried along
    assert torch.equal(copied.draw(3, row=0), table.draw(3, row=0))


@each_table
def test_what_is_made_is_made_once_and_read_only(name: str) -> None:
    table = TABLES[name]()
    for part in ("masses", "log_q"):
        array = getattr(table, part)
        assert getattr(table, part) is array
        assert not array.flags.writeable
    assert int(table.masses.sum()) == table.total
    np.testing.assert_array_equal(table.probabilities(), table.masses / float(table.total))
