"""Frozen candidates and the metrics over them: exact draws, ties, files, borders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.training.sampled_evaluation import (
    SampledCandidates,
    evaluate_sampled,
    evaluate_sampled_scores,
    freeze_sampled_candidates,
)
from tests.naive import evaluation as naive


def splits(
    num_users: int = 60, num_items: int = 300, seed: int = 0
) -> tuple[Interactions, Interactions, Interactions]:
    """Train, validation and test with one item a user in each of the last two."""
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(num_items) for _ in range(num_users)])
    users = np.arange(num_users)
    sizes = {"num_users": num_users, "num_items": num_items}
    train = Interactions.from_codes(np.repeat(users, 20), orders[:, 2:22].ravel(), **sizes)
    validation = Interactions.from_codes(users, orders[:, 0], **sizes)
    return train, validation, Interactions.from_codes(users, orders[:, 1], **sizes)


def test_negatives_are_in_no_split_and_distinct() -> None:
    train, validation, test = splits()
    frozen = freeze_sampled_candidates(train, test, validation=validation, seed=5)
    assert frozen.users.tolist() == list(range(60))
    assert frozen.positives.tolist() == test.positive_items.tolist()
    assert frozen.negatives.shape == (60, 99)
    for row in range(60):
        negatives = frozen.negatives[row].tolist()
        assert negatives == sorted(set(negatives))
        for split in (train, validation, test):
            assert not set(negatives) & set(split.positives_of(row).tolist())


def test_draws_are_a_function_of_the_seed_and_the_row() -> None:
    train, validation, test = splits()
    one = freeze_sampled_candidates(train, test, validation=validation, seed=5)
    two = freeze_sampled_candidates(train, test, validation=validation, seed=5)
    other = freeze_sampled_candidates(train, test, validation=validation, seed=6)
    assert np.array_equal(one.negatives, two.negatives)
    assert (one.negatives != other.negatives).any(1).all()
    half = freeze_sampled_candidates(
        train, test.select(np.arange(30, 60)), validation=validation, seed=5
    )
    assert np.array_equal(half.negatives, one.negatives[30:])
    assert one.negatives[0, :6].tolist() == [10, 11, 16, 17, 20, 24]


def test_every_set_is_equally_likely() -> None:
    """Six items left, two drawn: fifteen sets, 400 expected each."""
    num_users = 6000
    known = np.array([1, 4, 5])
    sizes = {"num_users": num_users, "num_items": 10}
    users = np.arange(num_users)
    train = Interactions.from_codes(np.repeat(users, 3), np.tile(known, num_users), **sizes)
    test = Interactions.from_codes(users, np.full(num_users, 8), **sizes)
    frozen = freeze_sampled_candidates(train, test, num_negatives=2, seed=1)
    drawn, counts = np.unique(frozen.negatives, axis=0, return_counts=True)
    left = [0, 2, 3, 6, 7, 9]
    assert {tuple(row) for row in drawn.tolist()} == {(a, b) for a in left for b in left if a < b}
    chi_square = float(((counts - 400.0) ** 2 / 400.0).sum())
    assert chi_square < 54.0  # p = 1e-6 at 14 degrees of freedom


def test_users_with_few_items_left_get_all_of_them() -> None:
    train = Interactions.from_codes([0, 0, 1], [0, 1, 0], num_users=2, num_items=5)
    test = Interactions.from_codes([0, 1], [2, 3], num_users=2, num_items=5)
    frozen = freeze_sampled_candidates(train, test, num_negatives=4)
    assert frozen.negatives.tolist() == [[3, 4, -1, -1], [1, 2, 4, -1]]
    scores = np.array([[0.0, 0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    result = evaluate_sampled_scores(lambda u, i: scores[u[:, None], i], frozen, k=(1, 2))
    assert result.counts["rows_short"] == 2
    assert result.metrics["hr@1"] == 0.0
    assert result.metrics["hr@2"] == 1.0
    assert result.metrics["ndcg@2"] == pytest.approx(1 / math.log2(3))
    nobody = Interactions.from_codes([0, 0], [0, 1], num_users=1, num_items=3)
    alone = freeze_sampled_candidates(nobody, Interactions.from_codes([0], [2]), num_negatives=3)
    assert alone.negatives.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_ties_count_as_the_mean_over_orders(k: int) -> None:
    rng = np.random.default_rng(3)
    rows = 50
    frozen = SampledCandidates(
        users=np.arange(rows), positives=np.zeros(rows, np.int64),
        negatives=np.tile(np.arange(1, 6), (rows, 1)), cold=np.zeros(rows, np.bool_),
        num_users=rows, num_items=6, num_dropped=0, num_users_left_out=0, seed=0,
    )  # fmt: skip
    scores = rng.integers(0, 3, (rows, 6)).astype(np.float64)
    result = evaluate_sampled_scores(lambda u, i: scores[u[:, None], i], frozen, k=k)
    each = [naive.sampled_row(row[0], row[1:], k) for row in scores.tolist()]
    assert result.metrics[f"hr@{k}"] == pytest.approx(np.mean([hit for hit, _ in each]))
    assert result.metrics[f"ndcg@{k}"] == pytest.approx(np.mean([gain for _, gain in each]))


def test_vectors_and_scores_agree_and_equal_vectors_tie() -> None:
    train, validation, test = splits()
    frozen = freeze_sampled_candidates(train, test, validation=validation)
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(60, 16)), rng.normal(size=(300, 16))
    scores = users @ items.T
    by_vectors = evaluate_sampled(users, items, frozen, k=(5, 10))
    by_scores = evaluate_sampled_scores(lambda u, i: scores[u[:, None], i], frozen, k=(5, 10))
    assert by_vectors == by_scores
    same = np.tile(rng.normal(size=(1, 16)), (300, 1))
    with pytest.warns(UserWarning, match="evaluate_sampled: in 60 of 60 lists .* has collapsed"):
        tied = evaluate_sampled(users, same, frozen)
    assert tied.counts["rows_tied"] == 60
    assert tied.metrics["hr@10"] == pytest.approx(0.1)


def test_cold_users_and_unknown_items() -> None:
    train = Interactions.from_codes([0, 1], [0, 0], num_users=3, num_items=9)
    test = Interactions.from_codes([0, 1, 2, 3], [3, 11, 4, 1], num_users=4, num_items=12)
    frozen = freeze_sampled_candidates(train, test, num_negatives=3)
    assert frozen.positives.tolist() == [3, 9, 4]
    scores = np.zeros((3, 9))
    scores[:, 3:5] = 1.0

    def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.where(items == items[:, :1], 1.0, 0.0)

    warm = evaluate_sampled_scores(score, frozen)
    cold = evaluate_sampled_scores(score, frozen, scores_cold_users=True)
    assert warm.metrics["hr@10"] == 0.5
    assert cold.metrics["hr@10"] == pytest.approx(2 / 3)
    assert warm.counts["rows_cold_left_out"] == 1
    assert cold.counts["unknown_test_items"] == 1
    assert cold.counts["users_unknown_left_out"] == 1


def test_saving_and_loading(tmp_path: Path) -> None:
    train, validation, test = splits()
    frozen = freeze_sampled_candidates(train, test, validation=validation, seed=-7)
    path = tmp_path / "candidates.npz"
    frozen.save(path)
    again = SampledCandidates.load(path)
    for name, value in vars(frozen).items():
        assert np.array_equal(getattr(again, name), value), name
    assert list(tmp_path.iterdir()) == [path]


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "candidates.npz"
    with pytest.raises(FileFormatError, match="is not a file of sampled candidates"):
        SampledCandidates.load(path)
    train, _, test = splits(num_users=3)
    frozen = freeze_sampled_candidates(train, test)
    frozen.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileFormatError, match="is not a file of sampled candidates"):
        SampledCandidates.load(path)
    np.savez(path, users=np.zeros(1))
    with pytest.raises(FileFormatError, match="is not a file of sampled candidates"):
        SampledCandidates.load(path)
    facts = np.array([1, 2, 0, 0, 0])
    np.savez(path, users=[0], positives=[0], negatives=[[5]], cold=[False], facts=facts)
    with pytest.raises(FileFormatError, match=r"negatives\[0, 0\] = 5 is not a code"):
        SampledCandidates.load(path)
    with pytest.raises(FileFormatError, match="nowhere"):
        frozen.save(tmp_path / "nowhere" / "candidates.npz")


def test_bad_arguments() -> None:
    train, _, test = splits(num_users=3)
    frozen = freeze_sampled_candidates(train, test)
    users, items = np.zeros((3, 4)), np.zeros((300, 4))
    with pytest.raises(FastnegError, match="num_negatives = 0 is too small"):
        freeze_sampled_candidates(train, test, num_negatives=0)
    with pytest.raises(FastnegError, match="user_vectors have width 4, item_vectors 5"):
        evaluate_sampled(users, np.zeros((300, 5)), frozen)
    with pytest.raises(FastnegError, match="2 user vectors and 300 item vectors do not fit"):
        evaluate_sampled(users[:2], items, frozen)
    with pytest.raises(FastnegError, match=r"item_vectors\[0, 0\] = nan"):
        evaluate_sampled(users, np.full((300, 4), math.nan), frozen)
    with pytest.raises(FastnegError, match=r"the score of user 0 and item .* is NaN"):
        evaluate_sampled_scores(lambda u, i: np.full(i.shape, math.nan), frozen)
    with pytest.raises(FastnegError, match=r"give shape \(3, 100\)"):
        evaluate_sampled_scores(lambda u, i: np.zeros(3), frozen)
    empty = Interactions.from_codes([0], [0], num_users=3, num_items=300, weights=[0.0])
    with pytest.raises(FastnegError, match="test holds no positive pairs"):
        freeze_sampled_candidates(train, empty)
    cold = Interactions.from_codes([1], [0], num_users=3, num_items=300)
    frozen = freeze_sampled_candidates(cold, Interactions.from_codes([0], [1]))
    with pytest.raises(FastnegError, match="all 1 rows are of cold users"):
        evaluate_sampled(users, items, frozen)
