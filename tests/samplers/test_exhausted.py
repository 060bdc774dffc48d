"""Errors say why nothing is left: known items, items without a count, nothing there at the time."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable

import numpy as np
import pytest

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.base import Sampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler

SEEN = Interactions.from_codes([0, 0, 0, 0, 1], [0, 1, 2, 3, 0], num_users=3, num_items=6)
FULL = Interactions.from_codes([0] * 6, range(6), num_users=1, num_items=6)
DATES = np.array(["2024-01-01"] * 3 + ["2024-03-01"] * 3, "M8[D]")
SEPT = np.arange(6) + 1


def _available(**options: object) -> AvailableSampler:
    return AvailableSampler(SEEN, DATES, smoothing=1, **options)  # type: ignore[arg-type]


WHY: dict[str, tuple[Callable[[], Sampler], dict[str, object], str]] = {
    "all known": (
        lambda: UniformSampler(FULL), {},
        "all 6 items are known to the user or excluded by the request",
    ),
    "all known of a log-uniform catalog": (
        lambda: LogUniformSampler(FULL), {},
        "all 6 items are known to the user or excluded by the request",
    ),
    "excluded by the request": (
        lambda: UniformSampler(SEEN), {"exclude": [[4, 5]]},
        "all 6 items are known to the user or excluded by the request",
    ),
    "too few": (
        lambda: UniformSampler(SEEN, replacement=False), {},
        "4 of the 6 items are known or excluded",
    ),
    "no counts": (
        lambda: PopularitySampler(SEEN), {},
        r"all 4 items that can be drawn at all .*, and 2 of 6 have a count of 0 \(smoothing > 0",
    ),
    "no counts in classes": (
        lambda: PopularitySampler(SEEN, method="classes"), {}, "and 2 of 6 have a count of 0",
    ),
    "no events": (
        lambda: StreamingPopularitySampler(SEEN), {},
        r"all 6 items have a count of 0 \(smoothing > 0 draws them\)",
    ),
    "few events": (
        lambda: StreamingPopularitySampler(SEEN, counts=[3, 1, 0, 0, 0, 2], replacement=False), {},
        "2 of the 3 items that can be drawn at all are known or excluded, and 3 of 6 have a count",
    ),
    "nothing there by dates": (
        _available, {"times": np.array(["2023-12-31"], "M8[D]")},
        r"2023-12-31T00:00:00 none of 6 items is there \(first_seen: 2024-01-01T00:00:00 to 2024",
    ),
    "seconds taken for nanoseconds": (
        _available, {"times": [1_704_067_200]},
        r"at the time 1970-01-01T00:00:01.704067200 \(1704067200 nanoseconds since 1970\) none",
    ),
    "dates beside plain numbers": (
        lambda: AvailableSampler(SEEN, SEPT * 2**62 // 10, SEPT * 2**62 // 10, smoothing=1),
        {"times": [dt.date(2024, 1, 1)]},
        r"2024-01-01T00:00:00 \(1704067200000000000 nanoseconds since 1970\) none of 6 items is",
    ),
    "plain numbers": (
        lambda: AvailableSampler(SEEN, SEPT, smoothing=1), {"times": [0]},
        r"at the time 0 none of 6 items is there \(first_seen: 1 to 6\)",
    ),
    "floats": (
        lambda: AvailableSampler(SEEN, SEPT * 1.5, smoothing=1), {"times": [1.25]},
        r"at the time 1.25 none of 6 items is there \(first_seen: 1.5 to 9.0\)",
    ),
    "all known of what is there": (
        _available, {"times": [dt.date(2024, 2, 1)]},
        "at the time 2024-02-01T00:00:00 all 3 items that are there are known to the user",
    ),
    "without a first time": (
        lambda: AvailableSampler(SEEN, [1, 2, 3, 4, 5, None], smoothing=1, replacement=False),
        {"times": [9]}, "4 of the 5 items that are there are .* and 1 have no count or no first",
    ),
    "a group": (
        lambda: GroupedSampler(SEEN, [0, 0, 0, 0, 1, 1], smoothing=1, replacement=False),
        {"positives": [5]}, "5 of the 6 items that can be drawn at all are known or excluded",
    ),
    "no list": (
        lambda: ListedSampler([[0, 1], [], []], interactions=SEEN), {},
        "nothing is left of the list, and there is no fallback",
    ),
    "a short list": (
        lambda: ListedSampler([[0, 4], [], []], interactions=SEEN, replacement=False), {},
        "1 items of the list are neither known nor excluded by the request",
    ),
    "a fallback": (
        lambda: ListedSampler([[1]], fallback=UniformSampler(FULL)), {},
        "nothing is left of the list, and of the fallback all 6 items are known to the user",
    ),
    "a mixture": (
        lambda: MixedSampler([(UniformSampler(FULL), 1), (PopularitySampler(FULL, name="p"), 2)]),
        {}, "uniform: all 6 items are known .*, p: all 6 items that can be drawn at all are known",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHY)
def test_the_reason(name: str) -> None:
    make, more, why = WHY[name]
    sampler = make()
    before = sampler.state_dict()
    width = 1 if sampler.replacement else 6
    with pytest.raises(ExhaustedUserError, match=rf"user 0: .*{why}.*; leave these rows") as caught:
        sampler.sample([0], width, **more)  # type: ignore[arg-type]
    assert caught.value.users == [0]
    assert caught.value.why in str(caught.value)
    assert sampler.state_dict() == before
    again = copy.copy(caught.value)
    assert (str(again), again.users, again.why) == (
        str(caught.value), [0], caught.value.why
    )  # fmt: skip


def test_the_reason_is_the_first_rows_own() -> None:
    with pytest.raises(ExhaustedUserError, match=r"users 0, 2\); user 2: .*2023") as caught:
        _available().sample(
            [1, 2, 0], 2,
            times=np.array(["2024-02-01", "2023-01-01", "2024-02-01"], "M8[D]"),
        )  # fmt: skip
    assert caught.value.users == [0, 2]


def test_shared_draws_say_it_too() -> None:
    match = "sample_shared: fewer than 1 items can be drawn: at the time 2023-01-01T00:00:00 none"
    with pytest.raises(FastnegError, match=match):
        _available().sample_shared(2, time=dt.date(2023, 1, 1))
