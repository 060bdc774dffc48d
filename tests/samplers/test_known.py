"""What one sampler knows of the users, all that draw beside it exclude."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastneg.errors import ExhaustedUserError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.base import Sampler
from fastneg.samplers.known import all_known
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import assert_follows

N = 6
ONE = Interactions.from_codes([0, 0, 1], [0, 1, 2], num_users=3, num_items=N)
OTHER = Interactions.from_codes([0, 2, 2], [3, 0, 5], num_users=3, num_items=N)
KNOWN = {0: {0, 1, 3}, 1: {2}, 2: {0, 5}}  # by either
WEIGHTS = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]

WITHOUT_USERS: dict[str, Callable[[], Sampler]] = {
    "uniform": lambda: UniformSampler(N),
    "table": lambda: PopularitySampler(WEIGHTS, exponent=1.0, method="table"),
    "classes": lambda: PopularitySampler(WEIGHTS, exponent=1.0, method="classes"),
    "log-uniform": lambda: LogUniformSampler(N),
    "streaming": lambda: StreamingPopularitySampler(N, counts=[5, 4, 3, 2, 1, 1], exponent=1.0),
    "available": lambda: AvailableSampler(WEIGHTS, np.zeros(N, int), exponent=1.0),
    "listed": lambda: ListedSampler([list(range(N))] * 3, num_items=N),
    "mixture": lambda: MixedSampler([(UniformSampler(N), 1), (LogUniformSampler(N), 2)]),
    "listed in a mixture": lambda: MixedSampler(
        [(ListedSampler([[0, 1], [2], []], fallback=UniformSampler(N)), 1)]
    ),
    "only others": lambda: UniformSampler(OTHER),
}


def _drawn(sampler: Sampler, user: int) -> set[int]:
    times = np.zeros(40, int)
    return set(sampler.sample([user] * 40, 30, times=times).items.unique().tolist())


def _weights(name: str) -> list[float]:
    if name in ("uniform", "listed", "only others"):
        return [1.0] * N
    return WEIGHTS


@pytest.mark.parametrize("name", WITHOUT_USERS)
def test_a_fallback_excludes_what_the_lists_do(name: str) -> None:
    sampler = ListedSampler([[], [2, 4], [5]], fallback=WITHOUT_USERS[name](), interactions=ONE)
    assert not _drawn(sampler, 0) & ONE_KNOWN[0]
    assert _drawn(sampler, 1) == {4}
    assert _drawn(sampler, -1) == _drawn(WITHOUT_USERS[name](), -1) if name != "listed" else True
    log_q = sampler.log_q([list(range(N))], [0], times=[0]).exp().numpy()
    assert not log_q[0, [0, 1]].any()
    assert abs(log_q.sum() - 1) < 1e-6


ONE_KNOWN = {0: {0, 1}, 1: {2}, 2: set()}


@pytest.mark.parametrize("name", WITHOUT_USERS)
def test_a_part_of_a_mixture_excludes_what_another_knows(name: str) -> None:
    part = WITHOUT_USERS[name]()
    sampler = MixedSampler([(part, 3), (UniformSampler(ONE), 1)])
    known = KNOWN if name == "only others" else ONE_KNOWN
    for user in range(3):
        assert not _drawn(sampler, user) & known[user]
    assert part.interactions is None or part.interactions is OTHER  # the caller's own is untouched
    if name in ("uniform", "table", "classes", "streaming", "available", "only others"):
        own = naive.Weighted(_weights(name), known)
        twin = naive.Mixed([(own, 3), (naive.uniform(N, known), 1)])
        for user in range(3):
            q = twin.q(user)
            got = sampler.log_q([list(range(N))], [user], times=[0]).exp().numpy()
            np.testing.assert_allclose(got[0], q, rtol=1e-5)
            drawn = sampler.sample([user] * 200, 50, times=np.zeros(200, int)).items
            assert_follows(drawn, q)


def test_a_mixture_as_the_fallback_passes_on_what_its_parts_know() -> None:
    for mixture in (
        MixedSampler([(PopularitySampler(ONE, smoothing=1), 0.8), (UniformSampler(ONE), 0.2)]),
        MixedSampler([(MixedSampler([(UniformSampler(ONE), 1)]), 1), (UniformSampler(N), 1)]),
        ListedSampler([[], [], []], fallback=UniformSampler(ONE)),
    ):
        sampler = ListedSampler([[0, 1, 3], [2], []], fallback=mixture)
        assert _drawn(sampler, 0) == {3}
        assert _drawn(sampler, 1) == {0, 1, 3, 4, 5}
        assert sampler.interactions is ONE


def test_both_exclude_what_either_knows() -> None:
    for make in (
        lambda: ListedSampler([[0, 1, 3, 4], [], []], fallback=UniformSampler(OTHER),
                              interactions=ONE),
        lambda: MixedSampler([(UniformSampler(OTHER), 1), (PopularitySampler(ONE, smoothing=1), 1)]
                             ),
    ):  # fmt: skip
        for sampler in (make(), make().spawn("again")):
            for user in range(3):
                assert not _drawn(sampler, user) & KNOWN[user]
            distinct = sampler.log_q(np.tile(np.arange(N), (3, 1)), [0, 1, 2]).exp().numpy()
            for user, known in KNOWN.items():
                assert not distinct[user, sorted(known)].any()
            np.testing.assert_allclose(distinct.sum(axis=1), 1.0, rtol=1e-6)


def test_who_knows_everything_is_exhausted_whatever_part_knows_it() -> None:
    full = Interactions.from_codes([0] * N, range(N), num_users=2, num_items=N)
    for sampler in (
        MixedSampler([(UniformSampler(N), 1), (UniformSampler(full), 1)]),
        ListedSampler([[], [1]], fallback=UniformSampler(N), interactions=full),
    ):
        assert sampler.exhausted_users().tolist() == [0]
        with pytest.raises(ExhaustedUserError) as caught:
            sampler.sample([0, 1], 2)
        assert caught.value.users == [0]


def named(*sources: Interactions | None) -> dict[str, Interactions | None]:
    return {f"parts[{place}]": source for place, source in enumerate(sources)}


def test_all_known() -> None:
    same = Interactions.from_codes([1, 0, 0], [2, 1, 0], num_users=3, num_items=N)
    assert all_known("call", named()) is None
    assert all_known("call", named(None, None)) is None
    assert all_known("call", named(None, ONE, same, None)) is ONE
    union = all_known("call", named(ONE, None, OTHER, same))
    assert union is not None
    assert {u: set(union.positives_of(u).tolist()) for u in range(3)} == KNOWN
    assert (union.num_users, union.num_items) == (3, N)


def test_shared_draws_exclude_nobody() -> None:
    sampler = MixedSampler([(UniformSampler(N), 1), (UniformSampler(ONE), 1)])
    assert sampler.sample_shared(400).items.unique().tolist() == list(range(N))
    np.testing.assert_allclose(sampler.log_q(range(N)).exp(), 1 / N, rtol=1e-6)
