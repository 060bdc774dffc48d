"""Exact tables: whole masses that sum to n 2^32, near what was asked, the same everywhere."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import FastnegError
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.masses import integer_masses, survey, whole_masses
from fastneg.streams import key_of, stream_of
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square

EXTREMES = {
    "one item": [3.7],
    "one tiny item": [5e-324],
    "one huge item": [1.7e308],
    "all equal": [0.1] * 1000,
    "one giant": [1e300, *[1.0] * 500],
    "subnormals": [5e-324, 1e-323, 2e-320, 0.0],
    "subnormals and a giant": [5e-324, 1e300, 1e-310],
    "huge": [1e308, 1.7e308, 1e308, 3e307],
    "ratio 1e-30": [1.0, 1e-30, 0.5, 1e-30],
    "zeros": [0.0, 0.0, 1.0, 0.0, 2.0],
    "zipf": (1 / np.arange(1, 20_001) ** 1.1).tolist(),
    "just below and above a unit": [1.0, 2.0**-33, 2.0**-34, 2.0**-32, 2.0**-35],
    "thirds": [1.0, 1.0, 1.0, 0.0],
    "counts": [1, 2, 3, 4, 5, 6, 7],
}


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


def _check_masses(weights: list[float]) -> None:
    masses = [int(mass) for mass in integer_masses(np.array(weights, dtype=np.float64))]
    assert sum(masses) == len(weights) << 32
    due = naive.apportion(weights)
    for weight, mass, exact in zip(weights, masses, due, strict=True):
        assert (mass == 0) == (weight == 0)
        assert abs(mass - exact) <= 2 + exact / 2**51  # float64 sums, and two units


@pytest.mark.parametrize("name", EXTREMES)
def test_masses_are_the_exact_apportionment(name: str) -> None:
    _check_masses(EXTREMES[name])


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 1.7e308), st.integers(0, 1000)),
        min_size=1,
        max_size=40,
    ).filter(lambda weights: max(weights) > 0)
)
def test_masses_of_any_weights(weights: list[float]) -> None:
    _check_masses(weights)


@pytest.mark.parametrize("name", EXTREMES)
def test_the_table_gives_its_masses(name: str) -> None:
    table = AliasTable(EXTREMES[name])
    assert naive.cell_masses(table.cells.tolist()) == table.masses.tolist()
    assert table.total == len(EXTREMES[name]) << 32
    q = table.probabilities()
    assert abs(q.sum() - 1) < 1e-12
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(table.log_q, np.log(q), rtol=0, atol=2e-14)
    exact = np.array(EXTREMES[name], dtype=np.float64)
    exact = exact / exact.max()
    exact /= exact.sum()
    assert table.error["total_variation"] == pytest.approx(
        np.abs(q - exact).sum() / 2, abs=1e-12
    )  # fmt: skip
    assert not table.masses.flags.writeable
    assert not table.cells.flags.writeable


def test_the_error_is_reported() -> None:
    assert AliasTable([1.0, 1.0, 2.0]).error == {"max_relative": 0.0, "total_variation": 0.0}
    clamped = AliasTable([1.0, 1e-30]).error
    assert clamped["max_relative"] > 1e10  # 2^-33 where 1e-30 was asked
    assert clamped["total_variation"] == pytest.approx(2.0**-33, rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, 4096, 4097, 70_000, 200_003])
def test_tables_are_equal_at_any_number_of_threads(size: int) -> None:
    weights = np.random.default_rng(0).pareto(1.0, size) + 1e-9
    weights[::5] = 0 if size > 1 else 1
    prints = set()
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        prints.add(AliasTable(weights).fingerprint())
    assert len(prints) == 1
    weights[1 if size > 1 else 0] *= 1 + 1e-6
    assert size == 1 or AliasTable(weights).fingerprint() not in prints


def test_a_fingerprint_stands_still() -> None:
    table = AliasTable(np.arange(1, 1001, dtype=np.float64) ** 2)
    assert table.fingerprint() == "2fddda0bdc70fe752d4f593744a961f6"


def test_draws_word_for_word() -> None:
    table = AliasTable([5, 0, 1, 1e-4, 3, 3, 2], seed=11, name="words")
    for row, epoch in [(0, 0), (3, 0), (3, 2), (2**63 - 1, 1)]:
        key = key_of(11, stream_of("words"), epoch)
        words = [naive.word(key, row, draw) for draw in range(100)]
        expected = [naive.pick(table.cells.tolist(), word) for word in words]
        assert table.draw(100, row=row, epoch=epoch).tolist() == expected


def test_draws_follow_the_probabilities() -> None:
    table = AliasTable(1 / np.arange(1, 31) ** 0.75, seed=2)
    drawn = table.draw(100_000)
    assert drawn.dtype == torch.int64
    assert_follows(drawn, table.probabilities())
    assert chi_square(drawn, AliasTable(1 / np.arange(1, 31) ** 0.8).probabilities()) < LEVEL


def test_rows_are_counted_and_can_be_named() -> None:
    table = AliasTable(np.ones(1000), seed=4)
    first, second = table.draw(50), table.draw(50)
    assert not torch.equal(first, second)
    assert torch.equal(table.draw(50, row=0), first)
    assert torch.equal(table.draw(50, row=1), second)
    assert torch.equal(table.draw(80, row=1)[:50], second)
    assert not torch.equal(table.draw(50, row=0, epoch=1), first)
    copied = pickle.loads(pickle.dumps(table))  # noqa: S301
    assert torch.equal(copied.draw(50), table.draw(50))
    other = AliasTable(np.ones(1000), seed=4, name="other")
    assert not torch.equal(other.draw(50, row=0), first)
    assert not torch.equal(AliasTable(np.ones(1000), seed=5).draw(50, row=0), first)


def test_draws_at_any_number_of_threads() -> None:
    table = AliasTable(np.arange(1.0, 100.0))
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        drawn.append(table.draw(200_001, row=9))
    assert all(torch.equal(drawn[0], other) for other in drawn[1:])


@pytest.mark.parametrize("budget", [0, 8, 64, 1 << 20])
def test_running_sums(budget: int) -> None:
    table = AliasTable(np.arange(37.0))
    starts, stride = table.running_sums(budget)
    before = np.concatenate([[0], np.cumsum(table.masses)[:-1]])
    np.testing.assert_array_equal(starts, before[::stride])
    assert stride & (stride - 1) == 0
    assert starts.nbytes <= max(budget, 8)


BAD = {
    "nan": ([1.0, np.nan], r"AliasTable: weights\[1\] = nan is not finite \(weights: float64"),
    "inf": ([np.inf, 1.0], r"weights\[0\] = inf is not finite"),
    "negative": ([1, -3, 2], r"weights\[1\] = -3 is negative \(weights: int64, shape \(3,\)\)"),
    "zeros": ([0.0, 0.0], r"weights \(float64, shape \(2,\)\) is zero everywhere"),
    "empty": ([], "weights is empty"),
    "2-d": ([[1.0, 2.0]], "has 2 dimensions; 1 expected"),
    "scalar": (3.0, "has 0 dimensions"),
    "text": (["a", "b"], r"weights .* is not numeric"),
    "bool": ([True, False], r"weights \(bool.* is not numeric"),
    "complex": ([1j], "is not numeric"),
    "objects": ([None, 1], "holds Python objects"),
    "too large to be exact": ([2**53 + 1, 1], r"has values over 2\^53"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights(name: str) -> None:
    weights, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        AliasTable(weights)


def test_bad_draws() -> None:
    table = AliasTable([1.0, 2.0])
    for arguments, message in [
        ({"num_draws": 0}, "AliasTable.draw: num_draws = 0 is too small"),
        ({"num_draws": 2.0}, "num_draws = 2.0 is not an integer"),
        ({"num_draws": 1, "row": -1}, "row = -1"),
        ({"num_draws": 1, "row": 2**63}, "row = .* too large"),
        ({"num_draws": 1, "epoch": -1}, "epoch = -1"),
        ({"num_draws": 10**30}, "num_draws = .* too large"),
    ]:
        with pytest.raises(FastnegError, match=message):
            table.draw(**arguments)
    with pytest.raises(FastnegError, match="seed = True is a bool"):
        AliasTable([1.0], seed=True)


def test_units_too_many_are_taken_from_the_largest() -> None:
    """Rounding may give out more than there is; a total that is a little low makes it do so."""
    weights = np.random.default_rng(3).random(10_000) + 1e-3
    weights[[4_100, 7_000]] = 2.5
    seen = survey(weights)
    assert seen is not None
    whole = whole_masses(weights, seen._replace(total=seen.total * (1 - 1e-7)))
    masses = [int(mass) for mass in whole.masses]
    assert sum(masses) == len(weights) << 32
    assert masses[4_100] < masses[7_000] == max(masses)
    for b, (surplus, deficit) in enumerate(zip(whole.surplus, whole.deficit, strict=True)):
        block = masses[b * 4096 : (b + 1) * 4096]
        assert int(surplus) == sum(max(0, mass - (1 << 32)) for mass in block)
        assert int(deficit) == sum(max(0, (1 << 32) - mass) for mass in block)
    assert whole.error["max_relative"] > 1e-6
