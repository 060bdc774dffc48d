"""Without replacement: distinct ids, the law of the first ones, T, and unbiased sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.samplers import distinct
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square, far_from, kolmogorov
from tests.samplers import worlds
from tests.samplers.worlds import CASES, Case

each_sampler = pytest.mark.parametrize(
    "case", [case for case in CASES if "quota" not in case.name], ids=str
)
ROWS = 5000

WEIGHTS = {
    "equal": [1.0] * 6,
    "mild": [5.0, 3.0, 2.0, 1.0, 1.0, 0.5],
    "skewed": [1e4, 1e2, 3.0, 1.0, 1.0, 0.5],  # finished by the race
}


def _popular(name: str, seed: int = 0) -> tuple[Sampler, np.ndarray]:
    weights = np.array(WEIGHTS[name])
    sampler = PopularitySampler(weights, exponent=1.0, replacement=False, seed=seed)
    return sampler, weights / weights.sum()


@each_sampler
def test_ids_are_distinct_allowed_and_as_many_as_asked(case: Case) -> None:
    sampler, twin = case.make(replacement=False), case.twin()
    for user in worlds.allowed_users(twin):
        q = twin.q(None if user < 0 else user)
        possible = set(np.flatnonzero(q).tolist())
        for width in sorted({1, max(1, len(possible) - 1), len(possible)}):
            drawn = sampler.sample([user] * 40, width)
            for row in drawn.items.tolist():
                assert len(set(row)) == width
                assert set(row) <= possible
            assert drawn.log_q is not None
            assert (drawn.log_q <= 0).all()
            if width == len(possible):  # all there are: certain
                assert (drawn.log_q == 0).all()
        before = sampler.state_dict()
        with pytest.raises(ExhaustedUserError, match=r"fewer than .* distinct items") as caught:
            sampler.sample([user], len(possible) + 1)
        assert caught.value.users == [user]
        assert sampler.state_dict() == before
    if twin.q().sum() > 0:
        possible = np.flatnonzero(twin.q())
        shared = sampler.sample_shared(len(possible))
        assert sorted(shared.items.tolist()) == possible.tolist()
        assert (shared.log_q == 0).all()
        with pytest.raises(FastnegError, match=r"fewer than .* items can be drawn"):
            sampler.sample_shared(len(possible) + 1)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("width", [2, 4, 5])
def test_the_order_is_that_of_successive_draws(name: str, width: int) -> None:
    sampler, q = _popular(name)
    rows = ROWS * (1 if name == "skewed" else 5)
    drawn = sampler.sample(np.full(rows, -1), width).items.numpy()
    assert_follows(drawn[:, 0], q)
    law = naive.ordered_law(q, 2)
    pairs = list(law)
    code = {pair: k for k, pair in enumerate(pairs)}
    ids = [code[tuple(pair)] for pair in drawn[:, :2].tolist()]
    assert_follows(ids, [law[pair] for pair in pairs])
    swapped = [code[pair[1], pair[0]] for pair in drawn[:, :2].tolist()]
    assert name == "equal" or chi_square(swapped, [law[pair] for pair in pairs]) < LEVEL


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("width", [1, 3, 5])
def test_log_q_is_an_inclusion_probability_given_the_next_arrival(name: str, width: int) -> None:
    sampler, q = _popular(name)
    drawn = sampler.sample(np.full(ROWS, -1), width)
    included = np.exp(drawn.log_q.numpy().astype(np.float64))
    with np.errstate(divide="ignore"):
        times = -np.log1p(-included) / q[drawn.items.numpy()]
    # an item that is certain in float32 says nothing of T; the rarest of a row says most
    rarest = q[drawn.items.numpy()].argmin(axis=1)
    stop = times[np.arange(ROWS), rarest]
    sharp = included < 0.999
    with np.errstate(invalid="ignore"):
        agree = np.abs(times / stop[:, None] - 1) < 1e-3
    assert agree[sharp & np.isfinite(stop)[:, None]].all()
    known = np.isfinite(stop)
    cdf = naive.stop_time_cdf(q, width)
    if known.all():
        assert kolmogorov(stop, cdf) > LEVEL
        assert kolmogorov(stop * 1.1, cdf) < LEVEL
        assert kolmogorov(stop, naive.stop_time_cdf(q, width - 1)) < LEVEL  # the K-th's time


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_sums_are_unbiased(name: str, width: int) -> None:
    sampler, q = _popular(name)
    rows = ROWS * (1 if name == "skewed" else 10)
    drawn = sampler.sample(np.full(rows, -1), width)
    inverse = np.exp(-drawn.log_q.numpy().astype(np.float64))
    items = drawn.items.numpy()
    worst_naive = 0.0
    for item in range(len(q)):
        here = items == item
        if here.any(axis=1).sum() < 400:  # too rare for a mean to be normal
            continue
        assert far_from((inverse * here).sum(axis=1), 1.0) < 5
        crude = here.any(axis=1) / (1 - (1 - q[item]) ** width)  # as if drawn with replacement
        worst_naive = max(worst_naive, far_from(crude, 1.0))
    assert width == 1 or worst_naive > 5


def test_uniform_has_its_plain_inclusion_probability() -> None:
    sampler = UniformSampler(worlds.interactions(), replacement=False)
    for user, left in [(worlds.NOTHING, 12), (worlds.SOME, 8), (worlds.ALL_BUT_TWO, 2)]:
        drawn = sampler.sample([user] * 500, 2)
        np.testing.assert_allclose(drawn.log_q, np.log(2 / left), rtol=1e-6)
        q = naive.uniform(12, worlds.known()).q(user)
        assert chi_square(drawn.items[:, 0], q, smallest=20) > LEVEL
        assert chi_square(drawn.items[:, 1], q, smallest=20) > LEVEL
    shared = UniformSampler(9, replacement=False).sample_shared(3)
    np.testing.assert_allclose(shared.log_q, np.log(3 / 9), rtol=1e-6)


@each_sampler
def test_the_first_is_a_plain_draw_for_every_user(case: Case) -> None:
    sampler, twin = case.make(replacement=False, seed=1), case.twin()
    for user in worlds.allowed_users(twin):
        q = twin.q(None if user < 0 else user)
        width = min(2, np.count_nonzero(q))
        drawn = sampler.sample([user] * 1000, int(width))
        assert chi_square(drawn.items[:, 0], q) > LEVEL


def test_the_race_and_the_arrivals_are_one_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced to race, or to exclude from the start, the law stays, in a mixture with tags too."""
    weights = np.array(WEIGHTS["mild"])

    def mixture() -> MixedSampler:
        return MixedSampler(
            [(UniformSampler(6), 1), (PopularitySampler(weights, exponent=1.0), 3)],
            replacement=False,
        )

    q = 0.25 / 6 + 0.75 * weights / weights.sum()
    law = naive.ordered_law(q, 2)
    pairs = {pair: k for k, pair in enumerate(law)}
    tag_of = 0.25 / 6 / q  # P(from uniform | item)
    for rounds, raceable in ((3, 1024), (0, 1024), (0, 0), (1, 0)):
        monkeypatch.setattr(distinct, "_ROUNDS", rounds)
        monkeypatch.setattr(distinct, "_RACEABLE", raceable)
        drawn = mixture().sample(np.full(ROWS // 2, -1), 2)
        items = drawn.items.numpy()
        ids = [pairs[tuple(pair)] for pair in items.tolist()]
        assert chi_square(ids, list(law.values())) > LEVEL
        assert chi_square(ids, list(law.values())[::-1]) < LEVEL
        for item in range(6):
            tags = drawn.source.numpy()[:, 0][items[:, 0] == item]
            p = tag_of[item]
            assert abs((tags == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / len(tags))
        included = np.exp(drawn.log_q.numpy().astype(np.float64))
        stop = (-np.log1p(-included) / q[items])[:, 0]
        assert kolmogorov(stop, naive.stop_time_cdf(q, 2)) > LEVEL


@pytest.mark.parametrize("raceable", [1024, 0])
def test_threads_rows_and_batches_change_nothing(
    raceable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastneg import threads

    monkeypatch.setattr(distinct, "_RACEABLE", raceable)
    monkeypatch.setattr(distinct, "_ROUNDS", 1)
    sampler = worlds.NESTED.make(replacement=False)
    users = np.array([u for u in worlds.allowed_users(worlds.NESTED.twin()) if u != 3] * 400)
    users = users[users != worlds.EVERYTHING]
    rows = np.arange(len(users)) * 3
    keep = np.array([np.count_nonzero(worlds.NESTED.twin().q(None if u < 0 else u)) >= 2
                     for u in range(-1, 8)])  # fmt: skip
    chosen = keep[users + 1]
    users, rows = users[chosen], rows[chosen]
    expected = sampler.sample(users, 2, rows=rows)
    order = np.random.default_rng(0).permutation(len(users))
    try:
        for number in (1, 2, 3, 7):
            threads.set_num_threads(number)
            drawn = sampler.sample(users[order], 2, rows=rows[order])
            assert torch.equal(drawn.items, expected.items[order])
            assert torch.equal(drawn.log_q, expected.log_q[order])
            assert torch.equal(drawn.source, expected.source[order])
    finally:
        threads.set_num_threads(None)
    pieces = [sampler.sample(users[i : i + 7], 2, rows=rows[i : i + 7]).items
              for i in range(0, len(users), 7)]  # fmt: skip
    assert torch.equal(torch.cat(pieces), expected.items)


def test_lists_and_steep_weights_end() -> None:
    lists = ListedSampler([[0, 1, 2, 3]], weights=[[1e12, 1.0, 1.0, 1e-3]], num_items=5,
                          replacement=False)  # fmt: skip
    drawn = lists.sample([0] * 200, 3)
    assert all(len(set(row)) == 3 for row in drawn.items.tolist())
    assert (drawn.items[:, 0] == 0).all()
    assert torch.isfinite(drawn.log_q).all()
    steep = PopularitySampler(np.array([1e300, 1.0, 1e-5, 1e-300]), exponent=1.0, replacement=False)
    assert sorted(steep.sample([-1], 4).items[0].tolist()) == [0, 1, 2, 3]
    assert torch.isfinite(steep.sample([-1] * 50, 3).log_q).all()
