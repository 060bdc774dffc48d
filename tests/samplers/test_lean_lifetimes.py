"""What the short way's kernels read by address lives as long as it is read."""

from __future__ import annotations

import copy
import functools
import gc
import multiprocessing
import os
import pickle
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from fastneg import threads
from fastneg.samplers.base import Sampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.results import Negatives
from tests.samplers import golden
from tests.samplers.test_lean import MAKE, USERS, Ways, _assert_same, seen


@pytest.mark.parametrize("name", MAKE)
def test_what_is_pointed_to_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler holds all that its kernel reads, and copies point to their own."""

    ways = Ways(monkeypatch)

    def everything(sampler: Sampler) -> list[Negatives]:
        return [sampler.sample(USERS, 4, log_q=log_q) for log_q in (True, False, True)]

    expected = ways.general(lambda: everything(MAKE[name](golden.seen(), seed=6)))
    first = MAKE[name](golden.seen(), seed=6)
    drawn = ways.short(functools.partial(everything, first))
    copies = [pickle.loads(pickle.dumps(first)), first.spawn("a"), first.spawn("b")]  # noqa: S301
    if isinstance(first, PopularitySampler):
        copies.append(first.with_exponent(0.25))
    del first
    gc.collect()
    litter = [np.full(n, 2**62) for n in range(1, 4000)]
    for ours, theirs in zip(drawn, expected, strict=True):
        _assert_same(ours, theirs)
    for copied in copies:
        twin = copy.copy(copied)
        twin.load_state_dict(copied.state_dict())
        theirs = ways.general(lambda s=twin: everything(s))
        for ours, other in zip(ways.short(lambda s=copied: everything(s)), theirs, strict=True):
            _assert_same(ours, other)
    assert all(ways.taken)
    assert len(litter) == 3999


@pytest.mark.parametrize("name", MAKE)
def test_threads_draw_at_once(name: str) -> None:
    sampler, twin = MAKE[name](seen(), seed=1), MAKE[name](seen(), seed=1)
    rows = np.arange(len(USERS))
    expected = [twin.sample(USERS, 4, rows=rows + 100 * i) for i in range(60)]

    def draw(i: int) -> Negatives:
        sampler.sample(USERS, 4, log_q=bool(i % 2))  # rows are handed out meanwhile
        return sampler.sample(USERS, 4, rows=rows + 100 * i)

    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(draw, range(60)), expected, strict=True):
            _assert_same(ours, theirs)
    assert sampler._counter.next_row == 60 * len(USERS)


@pytest.mark.parametrize("with_rows", [True, False])
def test_chunks_hold_what_they_read_after_ctrl_c(
    with_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has ended, its arrays are the caller's no more, and another thread draws on."""
    sampler = MAKE["uniform"](seen(), seed=1)
    users, rows = np.zeros(65_536, np.int64), np.arange(65_536)
    refs = [weakref.ref(users), *([weakref.ref(rows)] if with_rows else [])]
    given_up, read, alive = threading.Event(), threading.Event(), []
    caller = threading.current_thread()

    def kernel(*_: object) -> int:
        if threading.current_thread() is not caller:
            given_up.wait(0.5)
            alive.extend(ref() is not None for ref in refs)
            read.set()
        return 0

    real, raised = Future.exception, []

    def interrupted(future: Future[None], timeout: float | None = None) -> object:
        if not raised:  # Ctrl-C comes once, while the call waits for the chunk
            raised.append(True)
            raise KeyboardInterrupt
        return real(future, timeout)

    sampler._lean_calls = (None, sampler._lean_call(True)._replace(kernel=kernel))
    monkeypatch.setattr(Future, "exception", interrupted)
    threads.set_num_threads(2)
    try:
        sampler.sample(users, 2, rows=rows if with_rows else None)
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail("not interrupted")
    finally:
        threads.set_num_threads(None)
    del users, rows
    gc.collect()
    given_up.set()
    assert read.wait(20)
    assert alive == [True] * len(refs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_draws_the_same() -> None:
    sampler, rows = PopularitySampler(seen(), seed=3), np.arange(len(USERS))
    ours = sampler.sample(USERS, 4, rows=rows).items.tolist()
    reader, writer = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        writer.send(sampler.sample(USERS, 4, rows=rows).items.tolist())

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert reader.poll(60)
    assert reader.recv() == ours
    process.join()
    assert process.exitcode == 0
