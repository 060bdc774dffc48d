"""The drop-in for the loop over a set of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.samplers.instances import train_instances
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, biased_draws, chi_square

USERS = [0, 0, 2, 2, 2, 3, 0]
ITEMS = [1, 2, 0, 1, 2, 4, 1]  # (0, 1) twice


def _negatives(result: tuple[np.ndarray, ...], user: int) -> np.ndarray:
    users, items, labels = (np.asarray(part) for part in result)
    return items[(users == user) & (labels == 0)]


def test_same_order_as_the_loop() -> None:
    got = train_instances(USERS, ITEMS, 3, 6)
    wanted = naive.train_instances(USERS, ITEMS, 3, 6)
    for part in got:
        assert part.dtype == np.int64
        assert part.shape == (7 * 4,)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[2], wanted[2])
    positive = np.array(wanted[2]) == 1
    np.testing.assert_array_equal(got[1][positive], np.array(wanted[1])[positive])


def test_same_distribution_as_the_loop() -> None:
    ours = train_instances(USERS, ITEMS, 9000, 6)
    loop = naive.train_instances(USERS, ITEMS, 2000, 6)
    for user in (0, 2, 3):
        known = {i for u, i in zip(USERS, ITEMS, strict=True) if u == user}
        q = naive.uniform(6, {user: known}).q(user)
        assert_follows(_negatives(ours, user), q)
        assert chi_square(_negatives(loop, user), q) > LEVEL  # the twin is right too
        assert chi_square(biased_draws(q, 9000), q) < LEVEL


def test_no_pair_is_its_own_negative() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 2000), rng.integers(0, 80, 2000)
    got_users, got_items, labels = train_instances(users, items, 4, 80)
    pairs = set(zip(users.tolist(), items.tolist(), strict=True))
    drawn = zip(got_users[labels == 0].tolist(), got_items[labels == 0].tolist(), strict=True)
    assert not pairs & set(drawn)


def test_sparse_user_numbers() -> None:
    sparse = {0: 10**12, 2: 7, 3: 2**62}
    got = train_instances([sparse[u] for u in USERS], ITEMS, 2, 6)
    np.testing.assert_array_equal(got[0], np.repeat([sparse[u] for u in USERS], 3))
    q = naive.uniform(6, {0: {0, 1, 2}}).q(0)
    assert_follows(_negatives(train_instances([7] * 3, [0, 1, 2], 9000, 6), 7), q)


def test_exhausted_users_raise_under_their_own_numbers() -> None:
    with pytest.raises(ExhaustedUserError, match=r"train_instances: 1 users .* \(users 700\)") as e:
        train_instances([5, 700, 700], [0, 0, 1], 1, 2)
    assert e.value.users == [700]
    users, items, labels = train_instances([5, 700, 700], [0, 0, 1], 0, 2)  # nothing to draw
    assert (users.tolist(), items.tolist(), labels.tolist()) == ([5, 700, 700], [0, 0, 1], [1] * 3)


def test_seeds_and_epochs() -> None:
    first = train_instances(USERS, ITEMS, 50, 10**6, seed=1)[1]
    np.testing.assert_array_equal(train_instances(USERS, ITEMS, 50, 10**6, seed=1)[1], first)
    for other in ({"seed": 2}, {"seed": 1, "epoch": 1}):
        assert (train_instances(USERS, ITEMS, 50, 10**6, **other)[1] != first).mean() > 0.9


BAD = {
    "lengths": (([0, 1], [0], 1, 3), "lengths differ: users has 2, items has 1"),
    "empty": (([], [], 1, 3), "users and items are empty"),
    "items": (([0], [3], 1, 3), r"items\[0\] = 3 is not a code in 0\.\.2"),
    "users": (([0, -4], [0, 0], 1, 3), r"users\[1\] = -4 is negative"),
    "floats": (([0.5], [0], 1, 3), r"users \(float64.*integer dtype"),
    "text": ((["u"], [0], 1, 3), "users .*integer dtype"),
    "count": (([0], [0], -1, 3), "num_negatives = -1 is too small; give 0 or more"),
    "huge count": (([0], [0], 10**20, 3), "num_negatives = .* is too large"),
    "catalog": (([0], [0], 1, 0), "num_items = 0 is too small"),
    "bool": (([0], [0], True, 3), "num_negatives = True is a bool"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(FastnegError, match=f"train_instances: {message}"):
        train_instances(*arguments)


def test_bad_seeds() -> None:
    with pytest.raises(FastnegError, match="seed = True is a bool"):
        train_instances([0], [0], 1, 3, seed=True)
    with pytest.raises(FastnegError, match="epoch = -1"):
        train_instances([0], [0], 1, 3, epoch=-1)
