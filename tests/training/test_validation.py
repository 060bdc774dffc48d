"""Evaluation while training: whose positives are watched, and when a run stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.validation import Validation, out_of_patience, sample_queries


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(90, 80, positives_per_user=24, seed=1)
    return hold_out_validation(generated.interactions)


def test_a_sample_holds_all_positives_of_its_users_and_of_nobody_else(data) -> None:
    _, held_out = data
    sample = sample_queries(held_out, 30)
    users = np.unique(sample.row_users)
    assert users.size == 30
    wanted = np.isin(held_out.row_users, users)
    assert sample.row_items.tolist() == held_out.row_items[wanted].tolist()
    assert (sample.num_users, sample.num_items) == (held_out.num_users, held_out.num_items)
    assert users.tolist() != list(range(30))  # no beginning of the codes
    assert sample_queries(held_out, 30).fingerprint() == sample.fingerprint()
    fewer = np.unique(sample_queries(held_out, 10).row_users)
    assert set(fewer) < set(users)
    for count in (None, 90, 1000):
        assert sample_queries(held_out, count) is held_out


def test_every_user_is_as_likely_in_a_sample(data) -> None:
    """The order is a permutation of all users: samples of all sizes go through them all."""
    _, held_out = data
    seen: list[int] = []
    for count in range(1, 91):
        found = set(np.unique(sample_queries(held_out, count).row_users).tolist())
        seen += sorted(found - set(seen))
    assert sorted(seen) == list(range(90))
    assert abs(np.corrcoef(seen, range(90))[0, 1]) < 0.35  # 90 numbers in no order: sd 0.11


def test_rows_with_weight_0_are_no_part_of_a_sample(data) -> None:
    _, held_out = data
    weights = np.ones(held_out.num_rows)
    weights[held_out.row_users < 45] = 0
    half = type(held_out).from_codes(
        held_out.row_users, held_out.row_items, num_users=90, num_items=80, weights=weights
    )
    assert sample_queries(half, 45) is half
    sample = sample_queries(half, 20)
    assert np.unique(sample.row_users).size == 20
    assert sample.row_users.min() >= 45


def naive_stop(scores: list[float], patience: int) -> bool:
    if patience == 0 or len(scores) < 2 * patience:
        return False
    best = max(range(len(scores)), key=lambda i: scores[i])  # the first of the best
    recent = np.mean(scores[len(scores) - patience :])
    former = np.mean(scores[len(scores) - 2 * patience : len(scores) - patience])
    return best < len(scores) - patience and bool(recent <= former)


@given(
    st.lists(st.integers(0, 20).map(lambda n: n / 16), max_size=14),
    st.integers(0, 6),
)
def test_patience_against_its_twin(scores, patience) -> None:
    assert out_of_patience(scores, patience) == naive_stop(scores, patience)


def test_noise_on_a_slow_climb_does_not_stop_a_run() -> None:
    """Each evaluation climbs by a quarter of the noise; without a climb a run soon stops."""
    noise = np.random.default_rng(0).normal(0, 1, (200, 40))

    def without_a_best(scores: list[float], patience: int) -> bool:
        return max(scores, default=0.0) > max(scores[-patience:], default=0.0)

    def stops(rule, scores: np.ndarray) -> int:
        return next((n for n in range(41) if rule(scores[:n].tolist(), 5)), 41)

    climb = noise + np.arange(40) * 0.25
    assert np.median([stops(out_of_patience, one) for one in climb]) == 41  # not at all
    assert np.median([stops(without_a_best, one) for one in climb]) < 20
    assert np.median([stops(out_of_patience, one) for one in noise]) < 16


def test_a_single_lucky_evaluation_is_no_end() -> None:
    scores = [0.1, 0.12, 0.19, 0.13, 0.14, 0.15, 0.16, 0.17]
    assert not any(out_of_patience(scores[:n], 3) for n in range(9))


def test_all_and_the_sample_are_evaluated_apart(data) -> None:
    train, held_out = data
    model = build_model(train, Settings(dim=4, device="cpu"))
    watched = Validation(train, held_out, k=10, count=30)
    assert watched.sampled
    assert watched.on_sample(model).counts["users"] == 30
    assert watched.on_all(model).counts["users"] == 90
    assert not Validation(train, held_out, k=10, count=None).sampled
