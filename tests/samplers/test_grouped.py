"""Grouped negatives: the level a row is drawn from, the law inside it, every promise."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import ExhaustedUserError, FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.grouped import Grouped
from tests.naive.statistics import LEVEL, assert_follows, biased_draws, chi_square
from tests.samplers import golden, worlds
from tests.samplers.worlds import NUM_ITEMS, USERS

#                0   1   2   3  4  5  6  7   8   9  10 11
MARKETS = [7, 7, 7, 7, 7, -3, -3, -3, 5, 40, -1, -1]  # one of five, three, one and one items
REGIONS = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, -1, 2]
NAMES = ("level0", "level1", "all")
USERS_AND_UNKNOWN = [*USERS, -1]


def _sampler(min_items: int = 2, **options: object) -> GroupedSampler:
    return GroupedSampler(worlds.untouched(), [MARKETS, REGIONS], min_items=min_items, **options)


def _twin(min_items: int = 2) -> Grouped:
    weights = [count**0.75 for count in worlds.counts(all_items=False)]
    return Grouped(weights, [MARKETS, REGIONS], min_items, worlds.known(all_items=False))


def _pairs(twin: Grouped) -> list[tuple[int, int]]:
    """Every (user, positive) for whom something is allowed."""
    return [
        (user, item)
        for user in USERS_AND_UNKNOWN
        for item in range(NUM_ITEMS)
        if twin.q(user, item).sum() > 0
    ]


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


@pytest.mark.parametrize("min_items", [1, 2, 3, 4, 12])
def test_log_q_is_the_definition(min_items: int) -> None:
    sampler, twin = _sampler(min_items), _twin(min_items)
    grid = np.tile(np.arange(NUM_ITEMS), (len(USERS_AND_UNKNOWN) * NUM_ITEMS, 1))
    users = np.repeat(USERS_AND_UNKNOWN, NUM_ITEMS)
    positives = np.tile(np.arange(NUM_ITEMS), len(USERS_AND_UNKNOWN))
    table = sampler.log_q(grid, users, positives=positives).numpy().astype(np.float64)
    levels = set()
    for user, positive, row in zip(users, positives, table, strict=True):
        q = twin.q(user, positive)
        np.testing.assert_array_equal(np.isneginf(row), q == 0)
        wanted = np.log(q[q > 0])
        assert (np.abs(row[q > 0] - wanted) <= 1e-7 * np.abs(wanted) + 1e-6).all()
        levels.add(twin.level(user, positive))
    assert levels == {1: {0, 1, 2}, 2: {0, 1, 2}, 3: {0, 1, 2}, 4: {0, 1, 2}, 12: {2}}[min_items]


@pytest.mark.parametrize("min_items", [1, 3])
def test_draws_follow_the_definition(min_items: int) -> None:
    sampler, twin = _sampler(min_items, seed=5), _twin(min_items)
    pairs = _pairs(twin)
    users = np.repeat([user for user, _ in pairs], 60)
    positives = np.repeat([item for _, item in pairs], 60)
    drawn = sampler.sample(users, 500, positives=positives)
    assert drawn.log_q is not None
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.items, users, positives=positives))
    for k, (user, item) in enumerate(pairs):
        rows = slice(60 * k, 60 * k + 60)
        assert (drawn.source[rows] == twin.level(user, item)).all()
        assert_follows(drawn.items[rows], twin.q(user, item))
    assert sampler.source_names == NAMES


def test_the_check_sees_wrong_groups_and_forgotten_exclusions() -> None:
    q = _twin().q(worlds.ONE, 0)
    users, positives = np.full(100, worlds.ONE), np.zeros(100, dtype=int)
    right = _sampler().sample(users, 300, positives=positives).items
    assert chi_square(right, q) > LEVEL
    only_regions = GroupedSampler(worlds.untouched(), REGIONS, min_items=2)
    assert chi_square(only_regions.sample(users, 300, positives=positives).items, q) < LEVEL
    forgotten = GroupedSampler(worlds.counts(all_items=False), [MARKETS, REGIONS], min_items=2)
    assert chi_square(forgotten.sample(users, 300, positives=positives).items, q) < LEVEL
    assert chi_square(biased_draws(q, 30_000), q) < LEVEL


def test_larger_groups_follow_their_counts() -> None:
    counts = np.random.default_rng(3).integers(0, 500, 3000)
    groups = np.arange(3000) % 7 - 1
    twin = Grouped((counts**0.75).tolist(), [groups.tolist()], 10)
    sampler = GroupedSampler(counts, groups)
    for positive in (0, 1, 6):
        q = twin.q(-1, positive)
        drawn = sampler.sample(np.full(200, -1), 1000, positives=np.full(200, positive))
        assert chi_square(drawn.items, q) > LEVEL
        assert (drawn.source == twin.level(-1, positive)).all()
        flatter = GroupedSampler(counts, groups, exponent=0.6)
        drawn = flatter.sample(np.full(200, -1), 1000, positives=np.full(200, positive))
        assert chi_square(drawn.items, q) < LEVEL


def test_extra_exclusions_can_empty_a_group() -> None:
    sampler, twin = _sampler(), _twin()
    users = [worlds.NOTHING] * 3
    exclude = [[1, 2], [0, 1, 2, 3], [9, 8, 7, 6, 5, 3, 2, 1, 0]]
    drawn = sampler.sample(users, 30_000, positives=[0, 4, 4], exclude=exclude)
    assert drawn.source[:, 0].tolist() == [0, 1, 2]
    for row, positive, gone in zip(drawn.items, [0, 4, 4], exclude, strict=True):
        assert_follows(row, twin.q(worlds.NOTHING, positive, gone))
    assert drawn.items[2].unique().tolist() == [10]


def test_a_user_who_knows_a_whole_group_draws_from_the_next_level() -> None:
    users = [worlds.ALL_BUT_ONE, worlds.NOT_THE_UNKNOWN, worlds.NOTHING]
    source = _sampler(1).sample(users[:1], 2, positives=[0]).source
    assert source.tolist() == [[1, 1]]
    with pytest.raises(ExhaustedUserError, match="users 7"):
        _sampler(1).sample(users, 2, positives=[0, 0, 0])


def test_exhausted_users() -> None:
    exhausted = _sampler().exhausted_users()
    twin = _twin()
    assert exhausted.tolist() == [u for u in USERS if twin.q(u, 11).sum() == 0]
    assert {worlds.EVERYTHING, worlds.NOT_THE_UNKNOWN} <= set(exhausted.tolist())
    assert GroupedSampler([1, 2], [0, 0]).exhausted_users().tolist() == []
    before = (sampler := _sampler()).state_dict()
    with pytest.raises(ExhaustedUserError, match=r"GroupedSampler\.sample: 1 users .* 6") as caught:
        sampler.sample([worlds.EVERYTHING, 0], 2, positives=[0, 0])
    assert caught.value.users == [worlds.EVERYTHING]
    assert sampler.state_dict() == before
    with pytest.raises(ExhaustedUserError):  # its one item left is the row's positive
        sampler.sample([worlds.ALL_BUT_ONE], 1, positives=[5])


def test_without_replacement_a_group_must_have_enough() -> None:
    sampler, twin = _sampler(1, replacement=False), _twin(1)
    for width in range(1, 10):
        users, positives = [worlds.NOTHING, worlds.ONE, -1], [0, 6, 8]
        drawn = sampler.sample(users, width, positives=positives)
        wide = _twin(max(1, width))
        for b, (user, item) in enumerate(zip(users, positives, strict=True)):
            row = drawn.items[b].tolist()
            assert len(set(row)) == width
            assert (wide.q(user, item)[row] > 0).all()
            assert (drawn.source[b] == wide.level(user, item)).all()
            if len(wide.allowed(user, item)[wide.level(user, item)]) == width:
                assert (drawn.log_q[b] == 0).all()
    with pytest.raises(ExhaustedUserError, match="fewer than 11 distinct items"):
        sampler.sample([worlds.NOTHING], 11, positives=[0])
    assert sampler.state_dict()["next_row"] == 27
    first = sampler.sample(np.full(8_000, -1), 2, positives=np.zeros(8_000, int)).items
    law = naive.ordered_law(twin.q(-1, 0), 2)
    codes = first[:, 0] * NUM_ITEMS + first[:, 1]
    wanted = np.zeros(NUM_ITEMS * NUM_ITEMS)
    for (a, b), chance in law.items():
        wanted[a * NUM_ITEMS + b] = chance
    assert chi_square(codes, wanted / wanted.sum()) > LEVEL


def test_in_a_mixture() -> None:
    parts = [(_sampler(), 2.0), (UniformSampler(worlds.untouched()), 1.0)]
    users, positives = np.full(200, worlds.SOME), np.full(200, 5)
    uniform = naive.uniform(NUM_ITEMS, worlds.known(all_items=False))
    q = 2 / 3 * _twin().q(worlds.SOME, 5) + 1 / 3 * uniform.q(worlds.SOME, [5])
    for options in ({}, {"mode": "quota"}):
        mixed = MixedSampler(parts, **options)
        assert mixed.source_names == ("grouped.level0", "grouped.level1", "grouped.all", "uniform")
        drawn = mixed.sample(users, 300, positives=positives)
        assert_follows(drawn.items, q)
        level = _twin().level(worlds.SOME, 5)
        assert set(drawn.source.unique().tolist()) == {level, 3}
        assert_follows(drawn.items[drawn.source == level], _twin().q(worlds.SOME, 5))
        table = mixed.log_q(np.arange(NUM_ITEMS)[None], [worlds.SOME], positives=[5])
        np.testing.assert_allclose(np.exp(table[0].numpy()), q, rtol=1e-5)
        with pytest.raises(FastnegError, match="positive"):
            mixed.sample(users, 3)
    distinct = MixedSampler(parts, replacement=False).sample(users, 5, positives=positives)
    assert all(len(set(row)) == 5 for row in distinct.items.tolist())
    spawned = mixed.spawn("other").sample(users, 300, positives=positives)
    assert not torch.equal(spawned.items, drawn.items)


def test_positives_are_needed() -> None:
    sampler = _sampler()
    message = r"GroupedSampler\.(sample|sample_shared|log_q): .*give positives=\[B\] to sample"
    for call in (
        lambda: sampler.sample([0, 1], 2),
        lambda: sampler.sample_shared(2),
        lambda: sampler.log_q([1, 2]),
        lambda: sampler.log_q([1, 2], [0, 0]),
        lambda: _sampler(replacement=False).sample([0, 1], 2),
    ):
        with pytest.raises(FastnegError, match=message):
            call()
    for positives, wrong in [([0, 12], r"positives\[1\] = 12"), ([0, -1], r"positives\[1\] = -1")]:
        with pytest.raises(FastnegError, match=wrong):
            sampler.sample([0, 1], 2, positives=positives)
    with pytest.raises(FastnegError, match="num_negatives = 0"):
        _sampler(replacement=False).sample([0], 0, positives=[0])
    assert sampler.state_dict()["next_row"] == 0
    assert sampler.sample([], 3, positives=[]).items.shape == (0, 3)


def test_forms_of_item_groups() -> None:
    users, positives, rows = np.arange(6), np.arange(6), np.arange(6)

    def drawn(groups: object) -> torch.Tensor:
        sampler = GroupedSampler(worlds.counts(), groups, min_items=2)
        return sampler.sample(users, 20, positives=positives, rows=rows).items

    wanted = drawn([MARKETS, REGIONS])
    for form in (
        (np.array(MARKETS, np.int8), torch.tensor(REGIONS)),
        np.array([MARKETS, REGIONS]),
        {"market": MARKETS, "region": REGIONS},
        [[g * 1000 if g != -1 else -1 for g in MARKETS], REGIONS],
    ):
        assert torch.equal(drawn(form), wanted)
    one = drawn(MARKETS)
    for form in (np.array(MARKETS), torch.tensor(MARKETS), [MARKETS]):
        assert torch.equal(drawn(form), one)
    named = GroupedSampler(worlds.counts(), {"market": MARKETS})
    assert named.source_names == ("market", "all")
    nobody = GroupedSampler(worlds.counts(), np.full(NUM_ITEMS, -1))
    assert (nobody.sample([0], 9, positives=[3]).source == 1).all()


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([0, 1], {}, r"item_groups has 2 entries for 12 items"),
        ([MARKETS, [0]], {}, r"item_groups\[1\] has 1 entries for 12 items"),
        ({"all": MARKETS}, {}, 'level named "all"'),
        ({}, {}, "0 levels"),
        (np.zeros(12), {}, r"item_groups \(float64.*integer dtype"),
        (3, {}, "item_groups is not an array of integers"),
        (MARKETS, {"min_items": 0}, "min_items = 0 is too small"),
        (MARKETS, {"min_items": 1.5}, "min_items = 1.5 is not an integer"),
        (MARKETS, {"exponent": float("nan")}, "exponent = nan"),
        (MARKETS, {"smoothing": -1}, "smoothing = -1"),
        (MARKETS, {"seed": True}, "seed = True is a bool"),
    ],
)
def test_bad_arguments(groups: object, options: dict, message: str) -> None:
    with pytest.raises(FastnegError, match=message) as caught:
        GroupedSampler(worlds.counts(), groups, **options)
    assert str(caught.value).startswith("GroupedSampler: ")


def test_bad_counts() -> None:
    for counts, message in [
        ([], "counts is empty"),
        ([-1.0, 2], r"counts\[0\] = -1.0 is negative"),
        ([np.nan, 2], "not finite"),
        ([0, 0], "zero everywhere"),
        (np.zeros((2, 2)), "2 dimensions"),
    ]:
        with pytest.raises(FastnegError, match=message):
            GroupedSampler(counts, [0, 0])
    with pytest.raises(FastnegTypeError):
        GroupedSampler(["a", "b"], [0, 0])
    with pytest.raises(FastnegError, match="smoothing > 0"):
        GroupedSampler(Interactions.from_codes([0], [0], weights=[-1.0], num_items=2), [0, 0])
    smoothed = GroupedSampler([0, 0, 0], [0, 0, 1], smoothing=1.0, min_items=1)
    assert smoothed.sample([-1], 5, positives=[0]).items.tolist() == [[1] * 5]


# ------------------------------------------------------------------------------ stream and state
def _golden(**options: object) -> GroupedSampler:
    items = np.arange(golden.NUM_ITEMS)
    levels = [items // 8, np.where(items % 3, items // 40, -1), np.where(items % 5, items % 4, -1)]
    return GroupedSampler(golden.seen(), levels, min_items=7, **options)


def _request(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count) * 7 % golden.NUM_USERS, np.arange(count) * 31 % golden.NUM_ITEMS


# A change of these is a change of the stream: a line in CHANGELOG.md.
GOLDEN = [63, 487, 339, 59, 58, 62, 62, 74, 496, 499, 493, 496, 995, 996, 994, 992]


def test_sixteen_ids_stand_still() -> None:
    drawn = _golden().sample([0, 17, 30, -1], 4, positives=[3, 41, 500, 999]).items
    assert drawn.ravel().tolist() == GOLDEN


@pytest.mark.parametrize("shape", [(20_000, 5), (2, 70_001), (999, 101)])
def test_threads_change_nothing(shape: tuple[int, int]) -> None:
    users, positives = _request(shape[0])
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        drawn.append(
            _golden().sample(users, shape[1], positives=positives, rows=np.arange(shape[0]))
        )
    for other in drawn[1:]:
        for part, wanted in zip(other, drawn[0], strict=True):
            assert torch.equal(part, wanted)
    assert shape[0] == 2 or len(drawn[0].source.unique()) == 4


@settings(max_examples=15)
@given(data=st.data())
def test_batches_and_order_change_nothing(data: st.DataObject) -> None:
    sampler, count = SHARED, 60
    users, positives = _request(count)
    rows = np.arange(count) * 11 + 2**33
    whole = sampler.sample(users, 6, positives=positives, rows=rows)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=6)))
    for chosen in np.split(order, cuts):
        part = sampler.sample(users[chosen], 6, positives=positives[chosen], rows=rows[chosen])
        for got, wanted in zip(part, whole, strict=True):
            assert torch.equal(got, wanted[chosen])


SHARED = _golden()


def test_fewer_negatives_are_a_prefix_and_budgets_change_nothing() -> None:
    users, positives = _request(50)
    rows = np.arange(50)
    wide = _golden().sample(users, 12, positives=positives, rows=rows).items
    narrow = _golden().sample(users, 5, positives=positives, rows=rows, log_q=False)
    assert narrow.log_q is None
    assert torch.equal(narrow.items, wide[:, :5])
    exclude = [np.setdiff1d(np.arange(golden.NUM_ITEMS), np.arange(0, 1000, 13))] * 50
    drawn = [
        _golden(memory_budget=budget).sample(users, 9, positives=positives, exclude=exclude).items
        for budget in (1 << 20, 256, 0)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert (drawn[0] % 13 == 0).all()


@pytest.mark.parametrize(("left", "attempts"), [(5, 0), (6, 16)])
def test_hopeless_rows_do_not_try_rejection(left: int, attempts: int) -> None:
    """A quarter of the mass left, or less: the first word is a point of what is left."""
    sampler = GroupedSampler(np.ones(20), np.zeros(20, int), min_items=1)
    gone = list(range(20 - left))
    rows = np.arange(300)
    drawn = sampler.sample([-1] * 300, 4, positives=[0] * 300, exclude=[gone] * 300, rows=rows)
    cells, masses = sampler.tables.cells[:20].tolist(), sampler.tables.masses[:20].tolist()
    key = int(sampler._key(""))
    for row in range(300):
        for draw in range(4):
            wanted = naive.table_draw(cells, masses, gone, key, row, draw, attempts=attempts)
            assert drawn.items[row, draw] == wanted


def test_state_copies_and_children() -> None:
    users, positives = _request(9)

    def draw(sampler: GroupedSampler) -> torch.Tensor:
        return sampler.sample(users, 3, positives=positives).items

    first = _golden(seed=3)
    first.set_epoch(4)
    draw(first)
    state = json.loads(json.dumps(first.state_dict()))
    copied = pickle.loads(pickle.dumps(first))  # noqa: S301
    wanted = draw(first)
    second = _golden(seed=99)
    second.load_state_dict(state)
    assert torch.equal(draw(second), wanted)
    assert torch.equal(draw(copied), wanted)
    assert not torch.equal(draw(first), wanted)
    child = pickle.loads(pickle.dumps(first.spawn("child")))  # noqa: S301
    assert torch.equal(draw(child), draw(first.spawn("child")))
    assert not torch.equal(draw(_golden(seed=3, name="other")), draw(_golden(seed=3)))


def test_out_is_written() -> None:
    users, positives = _request(7)
    out = (np.empty((7, 5), np.int64), np.empty((7, 5), np.float32), np.empty((7, 5), np.int8))
    wanted = _golden().sample(users, 5, positives=positives)
    _golden().sample(users, 5, positives=positives, out=out)
    for got, want in zip(out, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
