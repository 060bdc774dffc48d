"""Rows that wait are finished by draws that exclude what they have: the law, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastneg.errors import ExhaustedUserError
from fastneg.samplers import distinct
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.base import Sampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, chi_square, far_from, kolmogorov
from tests.samplers import worlds
from tests.samplers.worlds import CASES, Case


def _excluding(monkeypatch: pytest.MonkeyPatch, rounds: int = 0) -> None:
    """Every row is finished as rows of large catalogs are."""
    monkeypatch.setattr(distinct, "_ROUNDS", rounds)
    monkeypatch.setattr(distinct, "_RACEABLE", 0)


def _others() -> dict[str, Case]:
    known, counts = worlds.interactions(), worlds.interactions().item_user_counts
    twin = worlds.UNIFORM.twin
    first = np.where(np.arange(12) < 9, 0, 100)
    return {
        "grouped": Case(
            "grouped",
            lambda **more: GroupedSampler(
                known, [np.arange(12) // 4, np.arange(12) // 6], min_items=3, **more
            ),
            twin,
        ),
        "available": Case(
            "available", lambda **more: AvailableSampler(known, first, **more), twin
        ),
        "lists and a fallback in a mixture": Case(
            "lists and a fallback in a mixture",
            lambda **more: MixedSampler(
                [
                    (ListedSampler([[0, 5], [4, 0]] + [[]] * (known.num_users - 2),
                                   weights=[[9.0, 1.0], [50.0, 1.0]] + [[]] * (known.num_users - 2),
                                   fallback=PopularitySampler(counts, exponent=2.0)), 3),
                    (MixedSampler([(UniformSampler(known), 1), (LogUniformSampler(known), 1e-3)]),
                     0.5),
                ],
                **more,
            ),
            twin,
        ),
    }  # fmt: skip


EXCLUDING = [case for case in CASES if "quota" not in case.name] + list(_others().values())


@pytest.mark.parametrize("case", EXCLUDING, ids=str)
def test_excluding_what_was_drawn_keeps_the_law(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs of the first two and T follow q(i|u), however few items a part has left."""
    _excluding(monkeypatch)
    sampler, rows = case.make(replacement=False, seed=3), 1500
    everything = np.arange(12)
    for user in (worlds.NOTHING, worlds.ONE, worlds.SOME, worlds.ALL_BUT_TWO):
        extra = {"positives": [5], "times": [50]}
        if user in sampler.exhausted_users():
            continue
        log_q = sampler.log_q(everything[None], [user], **extra)
        q = np.exp(log_q[0].numpy().astype(np.float64))
        q /= q.sum()
        width = min(2, int(np.count_nonzero(q)) - 1)
        if width < 1:
            continue
        more = {key: value * rows for key, value in extra.items()}
        drawn = sampler.sample([user] * rows, width, **more)
        law = naive.ordered_law(q, width)
        code = {order: k for k, order in enumerate(law)}
        ids = [code[tuple(order)] for order in drawn.items.tolist()]
        assert chi_square(ids, list(law.values())) > LEVEL
        included = np.exp(drawn.log_q.numpy().astype(np.float64))
        sharp = (included < 0.999).all(axis=1)
        if sharp.all() and case.name != "uniform":  # whose log_q knows no T
            stop = (-np.log1p(-included) / q[drawn.items.numpy()]).mean(axis=1)
            assert kolmogorov(stop, naive.stop_time_cdf(q, width)) > LEVEL


@pytest.mark.parametrize("case", EXCLUDING[:-3], ids=str)
def test_excluding_finds_all_there_are(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _excluding(monkeypatch, rounds=1)
    sampler, twin = case.make(replacement=False), case.twin()
    for user in worlds.allowed_users(twin):
        possible = np.flatnonzero(twin.q(None if user < 0 else user))
        drawn = sampler.sample([user] * 10, len(possible))
        assert (np.sort(drawn.items.numpy()) == possible).all()
        assert (drawn.log_q == 0).all()
        with pytest.raises(ExhaustedUserError):
            sampler.sample([user], len(possible) + 1)


LARGE = 6000


def _heavy() -> dict[str, Sampler]:
    weights = np.ones(LARGE)
    weights[:3] = 1e10
    lists = [[5, 6, 7, 8], [9]]
    popular = PopularitySampler(weights, exponent=1.0)
    return {
        "table": PopularitySampler(weights, exponent=1.0, replacement=False),
        "classes": PopularitySampler(weights, exponent=1.0, method="classes", replacement=False),
        "streaming": StreamingPopularitySampler(
            LARGE, counts=weights.astype(np.int64), exponent=1.0, replacement=False
        ),
        "available": AvailableSampler(
            weights, np.zeros(LARGE, int), exponent=1.0, replacement=False
        ),
        "grouped": GroupedSampler(weights, np.zeros(LARGE, int), exponent=1.0, replacement=False),
        "mixture": MixedSampler([(popular, 1.0), (UniformSampler(LARGE), 1e-9)], replacement=False),
        "lists behind": ListedSampler(
            [[], []], fallback=MixedSampler([(popular, 1)]), replacement=False
        ),
        "short lists": MixedSampler(
            [(ListedSampler(part, num_items=LARGE), 1) for part in (lists, lists[::-1])],
            replacement=False,
        ),
    }


@pytest.mark.parametrize("name", _heavy())
def test_rows_that_wait_never_look_at_the_whole_catalog(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, rows = _heavy()[name], 40
    kind = type(sampler)
    looked = kind._log_q

    def watched(self: Sampler, plan: Any, items: np.ndarray, *rest: Any, **more: Any) -> None:
        assert items.shape[1] < LARGE
        looked(self, plan, items, *rest, **more)

    monkeypatch.setattr(kind, "_log_q", watched)
    width = 5 if name == "short lists" else 20
    users = np.zeros(rows, int)
    drawn = sampler.sample(users, width, positives=users + 100, times=users)
    items = drawn.items.numpy()
    assert all(len(set(row)) == width for row in items.tolist())
    if name == "short lists":
        assert (np.sort(items) == [5, 6, 7, 8, 9]).all()
        assert (drawn.log_q == 0).all()
        with pytest.raises(ExhaustedUserError):
            sampler.sample(users, 6)
        return
    assert (np.sort(items[:, :3]) == [0, 1, 2]).all()
    assert abs(items[:, 3:].mean() - LARGE / 2) < 5 * LARGE / np.sqrt(12 * 17 * rows)
    # all others are as likely as one another, each 17 in 5,997 (or one less, without the positive)
    included = np.exp(drawn.log_q.numpy().astype(np.float64))
    assert (included[:, :3] > 0.999).all()
    inverse = 1 / included[:, 3:]
    assert far_from(inverse.sum(axis=1), LARGE - 3 - (name == "grouped")) < 5


@pytest.mark.parametrize("weight", [1e-8, 1e-200, 1e-307, 1e-310, 5e-324])
@pytest.mark.parametrize("raceable", [1024, 0])
def test_a_part_that_hardly_ever_draws_is_drawn_when_the_others_are_out(
    weight: float, raceable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distinct, "_RACEABLE", raceable)
    alone = PopularitySampler([1, 0, 0, 0])
    for sampler in (
        MixedSampler([(alone, 1.0), (UniformSampler(4), weight)], replacement=False),
        ListedSampler(
            [[]], fallback=MixedSampler([(alone, 1.0), (UniformSampler(4), weight)]),
            replacement=False,
        ),
    ):  # fmt: skip
        drawn = sampler.sample([0] * 100, 4)
        assert (drawn.items[:, 0] == 0).all()
        assert (drawn.items.sort().values == torch.arange(4)).all()
        assert (drawn.log_q == 0).all()
        assert chi_square(drawn.items[:, 1], [0, 1 / 3, 1 / 3, 1 / 3]) > LEVEL
        assert (drawn.source[:, 1] == drawn.source.max()).all()  # the last part's tag
        log_q = sampler.log_q([[0, 1, 2, 3]], [0]).numpy().astype(np.float64)
        np.testing.assert_allclose(log_q[0, 1:], np.log(weight) - np.log(4), rtol=1e-6)
        two = sampler.sample([0] * 800, 2)
        assert torch.isfinite(two.log_q).all()
        # of the three others that the second is of, each is in with 1 - exp(-T / 3)
        inverse = np.exp(-two.log_q[:, 1].numpy().astype(np.float64))
        assert far_from(inverse, 3.0) < 5
