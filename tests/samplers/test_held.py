"""A call plans, draws and weighs with the same counts, wherever the streaming sampler stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.streams import key_of, stream_of

ITEMS = 6


def _seen() -> Interactions:
    return Interactions.from_codes([0, 1], [0, 1], num_items=ITEMS)


def _streaming() -> StreamingPopularitySampler:
    return StreamingPopularitySampler(_seen(), counts=[1] * ITEMS, exponent=1.0)


MAKE: dict[str, Callable[[StreamingPopularitySampler], Sampler]] = {
    "alone": lambda one: one,
    "mixture": lambda one: MixedSampler([(UniformSampler(_seen()), 1.0), (one, 1.0)]),
    "nested": lambda one: MixedSampler([(MixedSampler([(one, 1.0)]), 1.0)]),
    "distinct": lambda one: MixedSampler([(one, 1.0)], replacement=False),
    "fallback": lambda one: ListedSampler([[], []], fallback=one, interactions=_seen()),
    "two": lambda one: MixedSampler([(_streaming(), 1.0), (one, 1.0)]),
}
CALLS: dict[str, Callable[[Sampler], Any]] = {
    "sample": lambda sampler: sampler.sample([0, 1], 4, rows=[0, 1]),
    "sample_shared": lambda sampler: sampler.sample_shared(4, row=3),
    "log_q": lambda sampler: [sampler.log_q(np.arange(ITEMS), [0] * ITEMS)],
    "expected_count": lambda sampler: [sampler.expected_count(np.arange(ITEMS), 3)],
    "exhausted_users": lambda sampler: [sampler.exhausted_users()],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", MAKE)
def test_an_update_waits_for_the_call(name: str, call: str) -> None:
    if (name, call) == ("fallback", "sample_shared"):
        pytest.skip("a list has no draws that a batch shares")
    counted = _streaming()
    sampler = MAKE[name](counted)
    wanted = CALLS[call](sampler)
    seen: list[bool] = []
    threads: list[threading.Thread] = []
    before = StreamingPopularitySampler._allowed

    def allowed(self: Any, *arguments: Any) -> Any:  # the plan, after which a thread updates
        found = before(self, *arguments)
        if not threads:
            threads.append(threading.Thread(target=counted.update, args=([2] * 1000,)))
            threads[0].start()
            threads[0].join(0.1)
            seen.append(threads[0].is_alive())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamingPopularitySampler, "_allowed", allowed)
        got = CALLS[call](sampler)
    if not threads:  # this call of this sampler needs no plan of what users exclude
        return
    threads[0].join()
    assert seen == [True]
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert counted.counts[2] == 1001


def test_two_mixtures_over_two_counts_do_not_wait_for_each_other() -> None:
    first, second = _streaming(), _streaming()
    mixtures = [
        MixedSampler([(one, 1.0), (other, 1.0)])
        for one, other in ((first, second), (second, first))
    ]

    def draw(sampler: Sampler) -> None:
        for _ in range(300):
            sampler.sample([0, 1], 2)

    threads = [threading.Thread(target=draw, args=(one,), daemon=True) for one in mixtures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Moving:
    """An epoch that another thread sets between any two reads."""

    def __init__(self) -> None:
        self.reads = 0

    def get(self) -> int:
        self.reads += 1
        return self.reads


def test_a_key_is_that_of_one_epoch() -> None:
    sampler: Any = UniformSampler(10)
    sampler._epoch = Moving()
    for lane in ("", "shared", ""):
        key = sampler._key(lane)
        epoch = sampler._epoch.reads  # one read a key
        path = ("uniform", f"/{lane}") if lane else ("uniform",)
        assert int(key) == key_of(0, stream_of(*path), epoch)
    for (seed, path, epoch, lane, _), key in sampler._keys.items():
        whole = (*path, f"/{lane}") if lane else path
        assert int(key) == key_of(seed, stream_of(*whole), epoch)
