"""Ctrl-C between any two instructions of an update leaves all of it, or nothing.

Python raises ``KeyboardInterrupt`` on the main thread after a call, at the start of a function and
of another turn of a loop. A tracing function does so at every single one of these places, in turn:
what is tried here is not left to chance.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import pytest

import fastneg
from fastneg import threads
from fastneg.interactions import Interactions
from fastneg.samplers import streaming_counts
from fastneg.samplers.frequency import FrequencyEstimator
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import NegativeBatches

_CHECKED = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")
HOME = str(Path(fastneg.__file__).parent)
KERNELS = str(Path(HOME) / "kernels")


class Interrupting:
    """Within the block, instruction number ``after`` of fastneg's Python code is interrupted."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.reached = False
        self._last: dict[FrameType, str] = {}

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        for thread in threading.enumerate():  # what goes on after Ctrl-C ends soon
            if thread.name == "fastneg-whole":
                thread.join()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(HOME) or name.startswith(KERNELS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            now = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            before = self._last.get(frame, "")
            self._last[frame] = now
            # the end of a with block belongs to the call before it, whose exception would release
            # the lock; raised from here it would not
            if before in _CHECKED and now not in ("LOAD_CONST", "SWAP", "PUSH_NULL"):
                if self.left == 0 and not self.reached:
                    self.reached = True
                    raise KeyboardInterrupt
                self.left -= 1
        return self._trace


def interrupted_everywhere(
    make: Callable[[], Any], change: Callable[[Any], object], facts: Callable[[Any], Any]
) -> int:
    """Every state after an interruption is the one before the change or the one after it.

    Returns:
        The number of instructions that were interrupted with the change made.
    """
    done = make()
    before = facts(done)
    change(done)
    after = facts(done)
    assert before != after
    made, count = 0, 0
    while True:
        one = make()
        tracer = Interrupting(count)
        try:
            with tracer:
                change(one)
        except KeyboardInterrupt:
            assert tracer.reached
        if not tracer.reached:
            break
        found = facts(one)
        assert found in (before, after), count
        made += found == after
        change(one)  # and it can be used as before
        count += 1
    assert count > 3
    return made


def _counts(sampler: StreamingPopularitySampler) -> Any:
    counts = sampler._counts
    held = sampler.counts.tolist()
    assert counts.largest == max(held)
    if counts.halve_every is None:
        assert sampler.events == sum(held) - 7  # but for the prior
    where = counts.records[counts.order, 1]
    np.testing.assert_array_equal(where, np.arange(len(held)))
    return held, sampler.events, counts.order.tolist(), counts.mass.tolist()


@pytest.mark.parametrize(
    ("events", "halve_every"), [(50, None), (50, 1000), (50, 50), (50, 20), (300, None)]
)
def test_an_update_counts_all_events_or_none(
    events: int, halve_every: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming_counts, "CHUNK", 128)
    items = np.arange(events) ** 2 % 7
    made = interrupted_everywhere(
        lambda: StreamingPopularitySampler(7, halve_every=halve_every, counts=[1] * 7),
        lambda sampler: sampler.update(items),
        _counts if halve_every is None else lambda sampler: (_counts(sampler), halve_every),
    )
    assert made > 0


@pytest.mark.parametrize("per_batch", [False, True])
def test_an_estimators_update_counts_all_events_or_none(per_batch: bool) -> None:
    items = np.arange(100) % 9

    def facts(estimator: FrequencyEstimator) -> Any:
        state = estimator.state_dict()
        assert state["last"].max() <= state["step"]
        return state["step"], state["last"].tolist(), state["gaps"].tolist()

    interrupted_everywhere(
        lambda: FrequencyEstimator(16, per_batch=per_batch),
        lambda estimator: estimator.update(items),
        facts,
    )


def test_a_state_is_loaded_whole_or_not_at_all() -> None:
    seen = Interactions.from_codes([0, 1], [0, 1], num_items=7)
    uniform = UniformSampler(seen)
    counted = StreamingPopularitySampler(7, counts=[1] * 7)
    makers: list[Callable[[], Any]] = [
        lambda: StreamingPopularitySampler(7, counts=[1] * 7),
        lambda: UniformSampler(seen),
        lambda: MixedSampler([(uniform, 1.0), (counted, 1.0)]),
        lambda: ListedSampler([[], [2]], fallback=uniform, interactions=seen),
        lambda: FrequencyEstimator(16),
        lambda: NegativeBatches(seen, batch_size=1, sampler=uniform, num_negatives=2),
    ]
    for make in makers:
        source = make()
        if hasattr(source, "update"):
            source.update(np.arange(40) % 5)
        if hasattr(source, "set_epoch"):
            source.set_epoch(3)
        if hasattr(source, "sample_shared"):
            source.seed = 8
            source.sample_shared(2)
        state = source.state_dict()

        def facts(one: Any) -> Any:
            found = one.state_dict()
            if isinstance(one, MixedSampler):
                found["parts"] = [(part.seed, part.epoch) for part in one.parts]
                assert {(one.seed, one.epoch)} == set(found["parts"])
            return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}

        interrupted_everywhere(make, lambda one, state=state: one.load_state_dict(state), facts)


def test_chunks_have_ended_when_ctrl_c_is_raised() -> None:
    """They write into arrays of the caller, and read what the caller's locks protect."""
    started, ended = threading.Event(), []

    def work(start: int, stop: int) -> None:
        if start == 0:
            started.wait(10)
            raise KeyboardInterrupt
        started.set()
        threading.Event().wait(0.2)
        ended.append(start)

    try:
        threads.set_num_threads(3)
        with pytest.raises(KeyboardInterrupt):
            threads.run_chunks(work, 3)
        assert sorted(ended) == [1, 2]
    finally:
        threads.set_num_threads(None)


def test_the_check_sees_an_update_in_two_steps() -> None:
    class Halves:
        def __init__(self) -> None:
            self.numbers = [0, 0]

    code = "def change(one):\n    one.numbers[0] += len('a')\n    one.numbers[1] += len('a')\n"
    code += "def pause(n):\n    for k in range(20):\n        n += abs(k)\n"
    space: dict[str, Any] = {}
    exec(compile(code, HOME + "/somewhere.py", "exec"), space)  # noqa: S102
    with pytest.raises(AssertionError):
        interrupted_everywhere(
            Halves,
            lambda one: (space["change"](one), space["pause"](1)),
            lambda one: list(one.numbers),
        )
