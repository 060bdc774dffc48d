"""Frequencies from gaps: the paper's recursion, its bias, drift, collisions, ranks, state."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.errors import CheckpointError, FastnegError
from fastneg.samplers.frequency import FrequencyEstimator
from tests.naive.streaming import Gaps

IDS = st.one_of(st.integers(0, 30), st.integers(-(2**63), 2**63 - 1))


def _zipf(num_items: int) -> np.ndarray:
    weights = 1.0 / np.arange(1, num_items + 1)
    return weights / weights.sum()


def _stream(p: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(p), size, p=p)


def _gap(estimator: FrequencyEstimator, items: Any) -> np.ndarray:
    return estimator.gap(items).numpy()


@settings(max_examples=40)
@given(
    items=st.lists(IDS, max_size=80),
    cuts=st.sets(st.integers(0, 80), max_size=5),
    alpha=st.sampled_from([0.01, 0.5, 1.0]),
    slots=st.integers(1, 40),
    per_batch=st.booleans(),
)
def test_the_recursion(
    items: list[int], cuts: set[int], alpha: float, slots: int, per_batch: bool
) -> None:
    estimator = FrequencyEstimator(
        slots, num_hashes=2, alpha=alpha, per_batch=per_batch, seed=5
    )  # fmt: skip
    twin = Gaps(estimator._keys.tolist(), slots, alpha, per_batch)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(items)), len(items)]
    for start, stop in itertools.pairwise(bounds):
        part = np.array(items[start:stop], dtype=np.int64)
        estimator.update(part)
        twin.update(part.tolist())
    asked = [*items, 123456789]
    assert _gap(estimator, asked).tolist() == [twin.gap(item) for item in asked]
    assert estimator.step == twin.step
    whole = FrequencyEstimator(slots, num_hashes=2, alpha=alpha, seed=5)
    whole.update(np.array(items, dtype=np.int64))
    if not per_batch:  # how the stream is cut does not matter
        assert _gap(whole, asked).tolist() == _gap(estimator, asked).tolist()


def test_an_item_seen_k_times_among_n_has_gap_n_over_k() -> None:
    estimator = FrequencyEstimator(1000)
    estimator.update(np.tile([3, 8, 3, 5], 500))
    np.testing.assert_allclose(_gap(estimator, [8, 5]), 4.0, rtol=0.02)
    assert 1.0 < float(estimator.gap([3])[0]) < 2.01
    assert estimator.step == 2000
    assert float(estimator.gap(77)) == 2000.0  # unseen: the whole stream
    assert float(FrequencyEstimator(9).log_q([4])[0]) == 0.0  # no stream yet
    log_q = estimator.log_q(torch.tensor([[3, 8], [5, 77]], dtype=torch.int32))
    assert log_q.dtype == torch.float32
    assert log_q.shape == (2, 2)
    gaps = _gap(estimator, [[3, 8], [5, 77]])
    np.testing.assert_array_equal(log_q.numpy(), -np.log(gaps).astype(np.float32))
    np.testing.assert_array_equal(estimator.probability([[3, 8], [5, 77]]).numpy(), 1 / gaps)


def _mean_gap(p: np.ndarray, *, runs: int, size: int, **options: Any) -> np.ndarray:
    """float64 [runs, n]: gaps of all items at the end of independent streams."""
    found = []
    for run in range(runs):
        estimator = FrequencyEstimator(4096, seed=run, **options)
        estimator.update(_stream(p, size, run))
        found.append(_gap(estimator, np.arange(len(p))))
    return np.array(found)


def test_a_stationary_stream_mean_and_variance() -> None:
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    gaps = _mean_gap(p, runs=300, size=8000, alpha=0.05)
    error = gaps.std(axis=0) / np.sqrt(len(gaps))
    assert (np.abs(gaps.mean(axis=0) - 1 / p) < 5 * error).all()  # E[gap] = 1/p
    np.testing.assert_allclose(
        gaps.var(axis=0), 0.05 / 1.95 * (1 - p) / p**2, rtol=0.35
    )  # as the docstring says
    rates = (1 / gaps).mean(axis=0) * gaps.mean(axis=0)
    assert (rates > 1.0).all()
    assert (rates < 1.05).all()  # 1/gap is too large by alpha/2 at most


def test_a_prior_is_where_it_starts_from_and_is_forgotten() -> None:
    p, wrong = _zipf(20), _zipf(20)[::-1].copy()
    estimator = FrequencyEstimator(10_000, prior=wrong * 1000, alpha=0.05)
    np.testing.assert_allclose(estimator.probability(np.arange(20)).numpy(), wrong, rtol=1e-12)
    unknown = float(estimator.gap([999])[0])
    assert abs(unknown * wrong.min() - 1) < 1e-12  # as rare as the rarest of the prior
    estimator.update(_stream(p, 60_000))
    right = estimator.probability(np.arange(20)).numpy()
    assert np.abs(np.log(right / p)).max() < 0.8
    assert np.abs(np.log(right / p)).mean() < 0.25
    crowded = FrequencyEstimator(1, num_hashes=1, prior=[1, 1, 2])
    assert crowded.gap([0, 1, 2, 55]).tolist() == [1.0] * 4  # one slot for all
    batches = FrequencyEstimator(1000, per_batch=True, prior=[0.5, 0.01])
    np.testing.assert_allclose(batches.gap([0, 1]).numpy(), [2, 100], rtol=1e-12)


def test_popularity_that_shifts_is_followed() -> None:
    p = _zipf(10)
    estimator = FrequencyEstimator(5000, alpha=0.02)
    estimator.update(_stream(p, 30_000))
    before = estimator.probability(np.arange(10)).numpy()
    estimator.update(_stream(p[::-1].copy(), 30_000, 1))
    after = estimator.probability(np.arange(10)).numpy()
    assert np.abs(np.log(before / p)).mean() < 0.15
    assert np.abs(np.log(after / p[::-1])).mean() < 0.15
    assert after[0] < before[0] / 5


def test_several_hashes_lessen_what_collisions_do() -> None:
    p = _zipf(300)
    events = _stream(p, 100_000)
    bias = {}
    for number in (1, 4):
        estimator = FrequencyEstimator(600, num_hashes=number, alpha=0.05)
        estimator.update(events)
        ratio = estimator.probability(np.arange(300)).numpy() / p
        bias[number] = float(np.log(ratio).mean())
    assert bias[1] > 0.3  # collisions only raise an estimate
    assert bias[4] < bias[1] / 3


def test_batches_that_hold_an_item() -> None:
    p = np.array([0.7, 0.2, 0.07, 0.03])
    found = []
    for run in range(60):
        estimator = FrequencyEstimator(2000, per_batch=True, alpha=0.05, seed=run)
        for batch in _stream(p, 400 * 16, run).reshape(400, 16):
            estimator.update(batch)
        found.append(_gap(estimator, np.arange(4)))
    gaps = np.array(found)
    wanted = 1 / (1 - (1 - p) ** 16)
    error = gaps.std(axis=0) / np.sqrt(len(gaps)) + 1e-9
    assert (np.abs(gaps.mean(axis=0) - wanted) < 5 * error).all()


# ------------------------------------------------------------------------------------- ranks


def _ranks(laws: list[np.ndarray], sizes: list[int], run: int) -> FrequencyEstimator:
    ranks = []
    for r, (law, size) in enumerate(zip(laws, sizes, strict=True)):
        ranks.append(FrequencyEstimator(4096, alpha=0.02, seed=run))
        ranks[-1].update(_stream(law, size, 1000 * run + r))
    return ranks[0].merge(ranks[1:])


@pytest.mark.parametrize("sizes", [[5000] * 4, [2000, 8000, 5000, 5000]])
def test_four_ranks_know_the_whole_stream(sizes: list[int]) -> None:
    laws = [np.array(law) / 100 for law in
            ([70, 10, 10, 10], [10, 10, 10, 70], [40, 30, 20, 10], [10, 80, 5, 5])]  # fmt: skip
    truth = np.average(laws, axis=0, weights=sizes)
    rates = []
    for run in range(80):
        merged = _ranks(laws, sizes, run)
        assert merged.step == 20_000
        rates.append(merged.probability(np.arange(4)).numpy())
    mean, error = np.mean(rates, axis=0), np.std(rates, axis=0) / np.sqrt(80)
    assert (mean > truth * 0.999 - 5 * error).all()
    assert (mean < truth * 1.0102 + 5 * error).all()  # too large by alpha/2 at most
    averaged = 1 / np.average(1 / np.array(laws), axis=0, weights=sizes)
    assert (np.abs(averaged / truth - 1) > 0.1).all()  # a mean of gaps would be far off


def test_a_merged_clock_goes_on_as_that_of_the_whole() -> None:
    law = _zipf(6)
    merged = _ranks([law] * 4, [4000] * 4, 0)
    fresh = FrequencyEstimator(4096, alpha=0.02, seed=0)
    before = merged.probability(np.arange(6)).numpy()
    merged.update(_stream(law, 1000, 9))
    assert merged.step == 17_000
    assert np.abs(merged.probability(np.arange(6)).numpy() / before - 1).max() < 0.4
    alone = fresh.merge([])
    assert alone.step == 0
    half = FrequencyEstimator(4096, alpha=0.02)
    half.update([5] * 10)
    both = half.merge([FrequencyEstimator(4096, alpha=0.02)])
    assert both.gap([5]).tolist() == [1.0]  # a rank that saw nothing adds nothing


def test_ranks_that_share_a_batch() -> None:
    first = FrequencyEstimator(900, per_batch=True, prior=[0.5, 0.1, 0.0])
    second = FrequencyEstimator(900, per_batch=True, prior=[0.5, 0.2, 0.25])
    merged = first.merge([second])
    np.testing.assert_allclose(
        merged.probability([0, 1, 2]).numpy(), [0.75, 0.28, 0.25], rtol=1e-12
    )
    second.update([1])
    with pytest.raises(FastnegError, match=r"others\[0\] saw 1 batches, this one 0"):
        first.merge([second])


# ------------------------------------------------------------------------------------- state


def test_state_goes_on_exactly_from_arrays_and_tensors() -> None:
    estimator = FrequencyEstimator(50, prior=_zipf(9), seed=3)
    estimator.update(_stream(_zipf(9), 500))
    state = estimator.state_dict()
    arrays = {k: torch.from_numpy(v) for k, v in state.items() if isinstance(v, np.ndarray)}
    facts = json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays}))
    assert set(arrays) == {"last", "gaps"}
    resumed = FrequencyEstimator(50, seed=3)
    resumed.load_state_dict({**facts, **arrays})
    copied = pickle.loads(pickle.dumps(estimator))  # noqa: S301
    more = _stream(_zipf(12), 300, 1)
    for other in (estimator, resumed, copied):
        other.update(more)
    wanted = _gap(estimator, np.arange(20)).tolist()
    assert _gap(resumed, np.arange(20)).tolist() == wanted
    assert _gap(copied, np.arange(20)).tolist() == wanted
    assert state["step"] == 500  # copies: later updates do not reach them


def test_refusals() -> None:
    estimator = FrequencyEstimator(5)
    state = estimator.state_dict()
    for changed, message in [
        ({"seed": 9}, "seed is 9, this estimator's is 0"),
        ({"version": 7}, "version is 7"),
        ({"extra": 1}, "not an estimator's state"),
        ({"gaps": state["gaps"][:1]}, "should be int64 and float64"),
        ({"last": state["gaps"]}, "should be int64 and float64"),
        ({"gaps": state["gaps"] - 1}, "0 or more"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            estimator.load_state_dict({**state, **changed})
    for call, message in [
        (lambda: FrequencyEstimator(0), "num_slots = 0"),
        (lambda: FrequencyEstimator(5, num_hashes=0), "num_hashes = 0"),
        (lambda: FrequencyEstimator(5, alpha=0.0), r"alpha = 0\.0"),
        (lambda: FrequencyEstimator(5, alpha=1.5), r"alpha = 1\.5"),
        (lambda: FrequencyEstimator(5, prior=[0, 0]), "prior .* is zero everywhere"),
        (lambda: FrequencyEstimator(5, prior=[1, -1]), r"prior\[1\] = -1"),
        (lambda: FrequencyEstimator(5, prior=[2.0], per_batch=True), "is no probability"),
        (lambda: estimator.update([0.5]), "update: items .*integer dtype"),
        (lambda: estimator.update([[1]]), "update: items .* 2 dimensions"),
        (lambda: estimator.log_q(["a"]), "log_q: items .*integer dtype"),
        (lambda: estimator.merge([3]), r"others\[0\] is a int"),
        (lambda: estimator.merge([FrequencyEstimator(6)]), "num_slots = 6, here it is 5"),
    ]:
        with pytest.raises(FastnegError, match=message):
            call()
    assert estimator.step == 0
