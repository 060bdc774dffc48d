from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastneg.data.splits import (
    Split,
    hold_out_validation,
    split_by_time,
    split_last_fraction,
    split_leave_last_out,
    split_random,
)
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from tests.naive import splits as naive

rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12), st.sampled_from([0.0, 1.0, 2.0]),
              st.integers(0, 9)),
    min_size=1, max_size=70,
)  # fmt: skip


def make(
    given_rows: list[tuple[int, int, float, int]], *, timed: bool = True, weighted: bool = True
) -> Interactions:
    users, items, weights, times = (list(column) for column in zip(*given_rows, strict=True))
    return Interactions.from_codes(
        users,
        items,
        num_users=5,
        num_items=13,
        weights=weights if weighted else None,
        times=times if timed else None,
    )


def pairs(part: Interactions | None) -> set[tuple[int, int]]:
    if part is None:
        return set()
    owners = np.repeat(np.arange(part.num_users), part.user_positive_counts)
    return set(zip(owners.tolist(), part.positive_items.tolist(), strict=True))


def assert_partition(whole: Interactions, split: Split) -> None:
    sides = [pairs(side) for side in split]
    assert set.union(*sides) == pairs(whole)
    assert sum(map(len, sides)) == whole.num_positives
    touched: set[tuple[int, int]] = set()
    for side in split:
        if side is not None:
            assert (side.num_users, side.num_items) == (whole.num_users, whole.num_items)
            assert side.user_ids.tolist() == whole.user_ids.tolist()
            seen = set(zip(side.row_users.tolist(), side.row_items.tolist(), strict=True))
            # no row of a positive pair on a second side, be it an explicit negative
            assert not touched & seen & pairs(whole)
            touched |= seen


@given(rows, st.booleans(), st.booleans(), st.integers(0, 3))
def test_every_split_is_a_partition(
    given_rows: list[tuple[int, int, float, int]], timed: bool, weighted: bool, seed: int
) -> None:
    whole = make(given_rows, timed=timed, weighted=weighted)
    assert_partition(whole, split_leave_last_out(whole, seed=seed))
    assert_partition(whole, split_last_fraction(whole, seed=seed))
    assert_partition(whole, split_random(whole, fraction=0.3, seed=seed))
    assert_partition(whole, split_random(whole, fraction=0.3, seed=seed, per_user=True))
    assert_partition(whole, Split(*hold_out_validation(whole, seed=seed), None))
    for split in (split_leave_last_out(whole), split_last_fraction(whole)):
        assert sum(side.num_rows for side in split if side is not None) == whole.num_rows


@given(rows, st.booleans(), st.sampled_from(["0.05", "0.1", "0.2", "0.35", "0.5"]))
def test_last_fraction_equals_the_naive_twin(
    given_rows: list[tuple[int, int, float, int]], weighted: bool, fraction: str
) -> None:
    whole = make(given_rows, weighted=weighted)
    users, items, weights, times = (list(column) for column in zip(*given_rows, strict=True))
    ordered = naive.ordered_pairs(users, items, weights if weighted else None, times)
    last, last_two = set(), set()
    held: set[tuple[int, int]] = set()
    for user, own in ordered.items():
        count = naive.num_held(len(own), Fraction(fraction))
        held |= {(user, item) for item in own[len(own) - count :]}
        if len(own) >= 2:
            last.add((user, own[-1]))
        if len(own) >= 3:
            last_two.add((user, own[-2]))
    assert pairs(split_last_fraction(whole, fraction=float(fraction)).test) == held
    assert pairs(hold_out_validation(whole, fraction=float(fraction))[1]) == held
    split = split_leave_last_out(whole)
    assert (pairs(split.test), pairs(split.validation)) == (last, last_two)


def test_numbers_held_out_are_rounded_half_up() -> None:
    for count, tenth, fifth in (
        (1, 0, 0), (2, 0, 0), (3, 0, 1), (4, 0, 1), (5, 1, 1), (8, 1, 2), (14, 1, 3), (15, 2, 3),
        (24, 2, 5), (25, 3, 5), (35, 4, 7), (45, 5, 9), (105, 11, 21),
    ):  # fmt: skip
        made = Interactions.from_codes(np.zeros(count, int), np.arange(count))
        assert hold_out_validation(made)[1].num_positives == tenth
        assert split_last_fraction(made).test.num_positives == fifth  # type: ignore[union-attr]
    for count in range(1, 10):  # a twentieth rounds to nothing: five pairs and more give one
        made = Interactions.from_codes(np.zeros(count, int), np.arange(count))
        assert hold_out_validation(made, fraction=0.05)[1].num_positives == (count >= 5)
    made = Interactions.from_codes(np.zeros(10, int), np.arange(10))
    assert split_last_fraction(made, fraction=0.99).train.num_positives == 1


def test_without_times_the_seed_decides_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 20, 800), generator.integers(0, 90, 800)
    made = Interactions.from_codes(users, items)
    order = generator.permutation(800)
    shuffled = Interactions.from_codes(users[order], items[order])
    for split in (split_leave_last_out, split_last_fraction, split_random):
        first, again, other = (pairs(split(made, seed=seed).test) for seed in (0, 0, 1))
        assert first == again == pairs(split(shuffled, seed=0).test)
        assert first != other
    held = pairs(hold_out_validation(made, seed=0)[1])
    assert held == pairs(hold_out_validation(shuffled, seed=0)[1])
    # each place among a user's items is held out about equally often
    ranks = []
    for seed in range(40):
        for user, item in pairs(split_leave_last_out(made, seed=seed).test):
            own = made.positives_of(user)
            ranks.append(np.searchsorted(own, item) / own.size)
    counts = np.histogram(ranks, 5, (0, 1))[0]
    assert ((counts - len(ranks) / 5) ** 2 / (len(ranks) / 5)).sum() < 35  # p of 1e-6 is 33.4


def test_random_takes_exactly_its_share() -> None:
    made = Interactions.from_codes(np.arange(1_005) % 30, np.arange(1_005) // 30)
    split = split_random(made, fraction=0.1)
    assert split.validation is None
    assert split.test is not None
    assert split.test.num_positives == 101  # 100.5, half up
    assert pairs(split.test) != pairs(split_random(made, fraction=0.1, per_user=True).test)


@given(rows)
def test_by_time_equals_its_definition(given_rows: list[tuple[int, int, float, int]]) -> None:
    whole = make(given_rows)
    first: dict[tuple[int, int], int] = {}
    for user, item, weight, time in given_rows:
        if weight > 0:
            first[user, item] = min(first.get((user, item), 99), time)
    try:
        split = split_by_time(whole, test_fraction=0.3, validation_fraction=0.2)
    except FastnegError:
        assume(False)
    assert_partition(whole, split)
    for side, bound in ((split.test, 0.3), (split.validation, 0.5)):
        assert side is not None
        assert side.num_positives <= bound * len(first) + 0.5
    times = [[first[pair] for pair in pairs(side)] for side in split]
    assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])
    assert min(times[2]) <= int(split.test.row_times.min())  # type: ignore[union-attr]
    assert int(split.train.row_times.max()) < min(times[1])  # type: ignore[union-attr]
    # no larger test side would have done: the next time is one too many
    earlier = [time for time in first.values() if time < min(times[2])]
    ties = earlier.count(max(earlier))
    assert len(times[2]) + ties > naive.round_half_up(Fraction(3, 10) * len(first))


def test_by_time_on_a_plain_line() -> None:
    made = Interactions.from_codes(np.arange(100) % 7, np.arange(100), times=np.arange(100) * 10)
    split = split_by_time(made)
    assert split.test is not None
    assert split.validation is not None
    assert sorted(split.test.row_items.tolist()) == list(range(90, 100))
    assert sorted(split.validation.row_items.tolist()) == list(range(80, 90))
    split = split_by_time(made, test_fraction=0.25, validation_fraction=0)
    assert split.validation is None
    assert split.train.num_rows == 75


def test_by_time_repeats_do_not_leak() -> None:
    users, items = [0, 0, 0, 0, 1, 1], [0, 1, 2, 0, 0, 3]
    made = Interactions.from_codes(users, items, times=[1, 2, 3, 9, 9, 10])
    split = split_by_time(made, test_fraction=0.4, validation_fraction=0)
    assert pairs(split.test) == {(1, 0), (1, 3)}
    assert split.train.row_times is not None
    assert split.train.row_times.tolist() == [1, 2, 3]  # (0, 0) again at 9 is nobody's


def test_bad_arguments() -> None:
    made = Interactions.from_codes(np.zeros(20, int), np.arange(20))
    timed = Interactions.from_codes(np.zeros(20, int), np.arange(20), times=np.ones(20))
    late = Interactions.from_codes(np.zeros(20, int), np.arange(20), times=[0] * 3 + [1] * 17)
    with pytest.raises(FastnegError, match="split_by_time: the interactions have no times"):
        split_by_time(made)
    with pytest.raises(FastnegError, match="the last 20 pairs are of one time and more than the"):
        split_by_time(timed)
    with pytest.raises(FastnegError, match="the last 17 pairs are of one time"):
        split_by_time(late)
    with pytest.raises(FastnegError, match="too coarse for a validation side"):
        split_by_time(late, test_fraction=0.85)
    with pytest.raises(FastnegError, match="leave nothing to train on"):
        split_by_time(timed, test_fraction=0.5, validation_fraction=0.5)
    with pytest.raises(FastnegError, match="test_fraction leaves no pair on its side"):
        split_by_time(timed, test_fraction=0.001)
    for fraction in (0, 1, 1.5):
        with pytest.raises(FastnegError, match=r"fraction = .* is not between 0 and 1"):
            split_random(made, fraction=fraction)
    with pytest.raises(FastnegError, match="fraction = nan is not finite"):
        split_last_fraction(made, fraction=float("nan"))
    with pytest.raises(FastnegTypeError, match=r"hold_out_validation: seed = 0\.5"):
        hold_out_validation(made, seed=0.5)  # type: ignore[arg-type]
