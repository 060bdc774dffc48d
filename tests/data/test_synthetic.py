from __future__ import annotations

import numpy as np
import pytest

from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError


def test_the_same_seed_gives_the_same_data() -> None:
    one, two, other = (generate_dataset(50, 80, positives_per_user=9, seed=s) for s in (1, 1, 2))
    assert one.interactions.fingerprint() == two.interactions.fingerprint()
    assert one.interactions.fingerprint() != other.interactions.fingerprint()
    assert one.interactions.num_users == 50
    assert one.interactions.num_items == 80
    assert one.interactions.item_ids.tolist() == list(range(1, 81))
    assert one.interactions.num_positives == one.interactions.num_rows
    assert one.truth is not None
    assert one.truth.affinity(np.array([3, 4])).shape == (2, 80)


def test_draws_follow_the_announced_softmax() -> None:
    # With two items and one draw each, item 0 comes with probability 1 / (1 + e^(a1 - a0)).
    made = generate_dataset(20_000, 2, positives_per_user=1, dim=2, skew=1.0, seed=3)
    assert made.truth is not None
    assert made.interactions.num_rows == 20_000
    affinity = made.truth.affinity(np.arange(20_000))
    probability = 1 / (1 + np.exp(affinity[:, 1] - affinity[:, 0]))
    first = made.interactions.row_items == 0
    for low in np.arange(0, 1, 0.1):
        inside = (probability >= low) & (probability < low + 0.1)
        expected = probability[inside].sum()
        variance = (probability * (1 - probability))[inside].sum()
        assert abs(first[inside].sum() - expected) < 5 * np.sqrt(variance)
    wrong = np.roll(probability, 1)  # the same test on another user's logits fails
    assert abs(first[wrong > 0.9].sum() - wrong[wrong > 0.9].sum()) > 100


def test_what_people_like_ranks_high_and_popularity_is_skewed() -> None:
    made = generate_dataset(seed=0)
    rows = made.interactions
    assert made.truth is not None
    assert 45 < rows.num_rows / 1_000 < 75
    affinity = made.truth.affinity(np.arange(200))
    ranks = (-affinity).argsort(1).argsort(1)
    mine = [ranks[user, rows.positives_of(user)].mean() for user in range(200)]
    assert np.mean(mine) < 400  # 750 by chance
    counts = np.sort(rows.item_user_counts)[::-1]
    assert counts[:15].mean() > 8 * counts.mean()
    flat = generate_dataset(skew=0, sharpness=0, seed=0).interactions.item_user_counts
    assert flat.max() < 80  # of 40 expected each


def test_features_tell_of_the_factors_and_times_move_on() -> None:
    made = generate_dataset(seed=0)
    assert made.truth is not None
    assert made.user_features is not None
    assert made.item_features is not None
    age = made.user_features.numeric["age"]
    assert np.corrcoef(age, made.truth.user_factors[:, 0])[0, 1] > 0.8
    taste = made.user_features.categorical["taste"]
    strongest = np.abs(made.truth.user_factors).argmax(1)
    assert all(
        taste.categories[code].endswith(str(axis))
        for code, axis in zip(taste.codes, strongest, strict=True)
    )
    assert np.diff(made.item_features.multi["topics"].indptr).tolist() == [2] * 1_500
    times, users = made.interactions.row_times, made.interactions.row_users
    assert times is not None
    assert (np.diff(times)[np.diff(users) == 0] >= 0).all()


def test_bad_arguments() -> None:
    with pytest.raises(FastnegError, match="num_users = 0 is too small"):
        generate_dataset(0)
    with pytest.raises(FastnegError, match="num_items = 1 is too small"):
        generate_dataset(3, 1)
    with pytest.raises(FastnegError, match="skew = nan is not finite"):
        generate_dataset(skew=float("nan"))
