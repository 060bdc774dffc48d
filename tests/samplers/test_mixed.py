"""Mixtures: which part, how many slots, and what happens when a part has nothing left."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import ExhaustedUserError, FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.streams import key_of, stream_of
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square, far_from
from tests.samplers import worlds

N = worlds.NUM_ITEMS


def _parts(**options: float) -> list[tuple[object, float]]:
    source = worlds.interactions()
    return [(UniformSampler(source), 0.3), (PopularitySampler(source), 0.7)]


def test_source_tells_the_part_and_each_part_draws_by_itself() -> None:
    sampler = MixedSampler(_parts(), seed=3)
    assert sampler.source_names == ("uniform", "popularity")
    users = np.full(800, worlds.SOME)
    drawn = sampler.sample(users, 100)
    tags = drawn.source.numpy().ravel()
    assert_follows(tags, [0.3, 0.7])
    uniform = naive.uniform(N, worlds.known()).q(worlds.SOME)
    popular = naive.popularity(worlds.counts(), worlds.known()).q(worlds.SOME)
    ids = drawn.items.numpy().ravel()
    assert_follows(ids[tags == 0], uniform)
    assert_follows(ids[tags == 1], popular)
    assert chi_square(ids[tags == 0], popular) < LEVEL


def test_the_first_part_draws_word_for_word() -> None:
    sampler = MixedSampler(_parts(), seed=3)
    drawn = sampler.sample([-1], 60, rows=[4])
    words = key_of(3, stream_of("mixed", "0", "uniform"), 0)
    for draw, (item, tag) in enumerate(zip(drawn.items[0], drawn.source[0], strict=True)):
        if tag == 0:
            assert item == naive.uniform_draw(N, (), words, 4, draw)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 10])
def test_quota_slots(width: int) -> None:
    source = worlds.interactions()
    sampler = MixedSampler(
        [
            (UniformSampler(source), 0.04),
            (PopularitySampler(source), 0.36),
            (UniformSampler(N, name="all"), 0.6),
        ],
        mode="quota",
    )
    drawn = sampler.sample(np.full(20_000, -1), width)
    tags = drawn.source.numpy()
    for part, share in enumerate([0.04, 0.36, 0.6]):
        counts = (tags == part).sum(axis=1)
        whole = int(np.floor(share * width + 1e-9))
        assert set(np.unique(counts)) <= {whole, whole + 1}
        assert far_from(counts, share * width) < 5
    certain = np.repeat([0, 1, 2], [int(s * width + 1e-9) for s in (0.04, 0.36, 0.6)])
    assert (tags[:, : len(certain)] == certain).all()
    # log_q is the mixture's in every slot, though the slots are not drawn alike
    assert drawn.log_q is not None
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.items))
    popular = naive.popularity(worlds.counts())
    assert_follows(drawn.items, naive.Mixed([(naive.uniform(N), 0.64), (popular, 0.36)]).q())


def test_quota_sums_are_unbiased_slot_by_slot_they_are_not() -> None:
    """sum of f(i) / (K q(i)) over a row has the expectation sum of f, K slots together."""
    sampler = MixedSampler(_parts(), mode="quota", seed=5)
    drawn = sampler.sample(np.full(40_000, worlds.SOME), 4)
    allowed = naive.uniform(N, worlds.known()).q(worlds.SOME) > 0
    weight = np.exp(-drawn.log_q.numpy().astype(float)) / 4
    for item in np.flatnonzero(allowed):
        sums = (weight * (drawn.items.numpy() == item)).sum(axis=1)
        assert far_from(sums, 1.0) < 5
    first = 4 * weight[:, 0] * (drawn.items[:, 0].numpy() == 0)
    assert far_from(first, 1.0) > 5


def test_a_part_with_nothing_left_gives_its_share_away() -> None:
    untouched = worlds.untouched()
    popular = PopularitySampler(untouched)
    sampler = MixedSampler([(UniformSampler(untouched), 0.1), (popular, 0.9)])
    user = worlds.NOT_THE_UNKNOWN  # only item 11 is left, and nobody knows it
    for mode in ("draw", "quota"):
        sampler = MixedSampler([(UniformSampler(untouched), 0.1), (popular, 0.9)], mode=mode)
        drawn = sampler.sample([user, -1], 20)
        assert drawn.items[0].tolist() == [11] * 20
        assert drawn.log_q[0].tolist() == [0] * 20
        assert drawn.source[0].tolist() == [0] * 20
        assert torch.isneginf(sampler.log_q(np.arange(11)[None], [user])).all()
        assert sampler.exhausted_users().tolist() == []  # item 11 is left for EVERYTHING
    alone = MixedSampler([(popular, 1.0), (UniformSampler(untouched), 0.0)])
    assert user in alone.exhausted_users()
    with pytest.raises(ExhaustedUserError, match="users 7"):
        alone.sample([0, user], 2)
    full = MixedSampler(_parts())
    assert full.exhausted_users().tolist() == [worlds.EVERYTHING]


def test_a_part_with_weight_zero_never_comes() -> None:
    sampler = MixedSampler([(UniformSampler(5, name="a"), 0), (UniformSampler(5, name="b"), 1)])
    drawn = sampler.sample_shared(1000)
    assert (drawn.source == 1).all()


def test_weights_are_normalised_whatever_their_size() -> None:
    def items(weights: list[float]) -> torch.Tensor:
        parts = [(UniformSampler(9, name=str(k)), w) for k, w in enumerate(weights)]
        return MixedSampler(parts).sample_shared(500).items

    assert torch.equal(items([1, 3]), items([1e308 / 2, 1.5e308]))
    assert torch.equal(items([1, 3]), items([2.0**-1000, 3 * 2.0**-1000]))


def test_nested_names_and_tags() -> None:
    sampler = worlds.NESTED.make()
    assert sampler.source_names == ("mixed.uniform", "mixed.popularity", "listed", "all")
    drawn = sampler.sample(np.full(2000, worlds.NOTHING), 20)
    tags = drawn.source.numpy()
    assert_follows(tags, np.array([1.0, 2.0, 1.0, 0.5]) / 4.5)
    in_list = {item for item, _ in worlds.LISTS[worlds.NOTHING]}
    assert set(np.unique(drawn.items.numpy()[tags == 2])) <= in_list


def test_parts_have_their_own_words_inside() -> None:
    """The same sampler twice in one mixture, and in two, shares no words."""
    part = UniformSampler(10**6)
    drawn = MixedSampler([(part, 1), (part, 1)]).sample_shared(4000)
    first, second = (drawn.items[drawn.source == k] for k in (0, 1))
    assert len(np.intersect1d(first, second)) < 40  # 4 are expected by chance
    outer = part.sample_shared(4000)
    assert len(np.intersect1d(outer.items, drawn.items)) < 60


def test_parts_are_copied_and_their_epoch_is_the_mixtures() -> None:
    fresh, moved = UniformSampler(10**6), UniformSampler(10**6)
    moved.set_epoch(3)
    moved.sample_shared(4)
    assert torch.equal(
        MixedSampler([(fresh, 1)]).sample_shared(9).items,
        MixedSampler([(moved, 1)]).sample_shared(9).items,
    )
    assert moved.epoch == 3
    mixture = MixedSampler([(fresh, 1)])
    mixture.set_epoch(5)
    assert fresh.epoch == 0
    spawned = mixture.spawn("x")
    assert spawned.parts[0].epoch == 5
    fallback = ListedSampler([[]], fallback=moved)
    assert fallback.fallback.epoch == 0


UNIFORM = UniformSampler(5)

BAD = {
    "empty": ({"parts": []}, "MixedSampler: parts is empty"),
    "not a list": ({"parts": UNIFORM}, "parts is empty"),
    "no pair": ({"parts": [UNIFORM]}, r"parts\[0\] is not a pair \(sampler, weight\)"),
    "no sampler": ({"parts": [("uniform", 1)]}, r"parts\[0\] is not a pair"),
    "triple": ({"parts": [(UNIFORM, 1, 2)]}, r"parts\[0\] is not a pair"),
    "negative": ({"parts": [(UNIFORM, -1)]}, r"weight of parts\[0\] = -1.0 is too small"),
    "nan": ({"parts": [(UNIFORM, np.nan)]}, r"weight of parts\[0\] = nan is not finite"),
    "text": ({"parts": [(UNIFORM, "1")]}, r"weight of parts\[0\] = '1' is not a number"),
    "zeros": ({"parts": [(UNIFORM, 0), (UNIFORM, 0)]}, "all weights are 0"),
    "items": (
        {"parts": [(UNIFORM, 1), (UniformSampler(6), 1)]},
        r"parts\[1\] has 6 items, parts\[0\] 5",
    ),
    "users": (
        {
            "parts": [
                (UniformSampler(Interactions.from_codes([0], [4])), 1),
                (UniformSampler(Interactions.from_codes([1], [4])), 1),
            ]
        },
        r"different numbers of users \(uniform: 1, uniform: 2\)",
    ),
    "mode": ({"parts": [(UNIFORM, 1)], "mode": "both"}, "mode = 'both' is not one of 'draw', 'q"),
    "mode array": ({"parts": [(UNIFORM, 1)], "mode": np.ones(2)}, "mode = .* is not one of"),
    "distinct quota": (
        {"parts": [(UNIFORM, 1)], "mode": "quota", "replacement": False},
        "mode='quota' draws with replacement; give mode='draw'",
    ),
    "distinct part": (
        {"parts": [(UniformSampler(5, replacement=False), 1)]},
        r"parts\[0\] draws without replacement; say replacement=False of the mixture",
    ),
    "too many": ({"parts": [(UNIFORM, 1)] * 128}, "128 sources do not fit the int8 tags"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_mixtures(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        MixedSampler(**arguments)


def test_a_pair_that_is_none_is_a_type_error() -> None:
    with pytest.raises(FastnegTypeError):
        MixedSampler([3])


def test_many_parts_fill_the_tags() -> None:
    sampler = MixedSampler([(UniformSampler(5, name=f"{k}"), 1) for k in range(127)])
    assert sampler.sample_shared(5000).source.unique().numel() == 127
