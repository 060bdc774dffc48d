"""Inclusion probabilities against the law of every order, and sums that must be K."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.samplers import inclusion
from fastneg.samplers.inclusion import Inclusion, classes_of
from tests.naive import samplers as naive

WEIGHTS = {
    "equal": [1.0] * 6,
    "mild": [5.0, 3.0, 2.0, 1.0, 1.0, 0.5],
    "skewed": [1e4, 1e2, 3.0, 1.0, 1.0, 0.5],
    "steep": [1e5, 1e2, 1.0, 1e-2],
    "two": [3.0, 1.0],
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_against_every_order(name: str) -> None:
    q = np.array(WEIGHTS[name]) / sum(WEIGHTS[name])
    for width in range(1, len(q)):
        got = Inclusion(*classes_of(q), width)(q)
        np.testing.assert_allclose(got, naive.inclusion(q, width), rtol=1e-8, atol=1e-12)
        wrong = -np.expm1(width * np.log1p(-q))  # as if drawn with replacement
        assert width == 1 or np.abs(wrong - got).max() > 1e-3


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=6), st.data())
def test_any_rates(weights: list[float], data: st.DataObject) -> None:
    q = np.array(weights) / sum(weights)
    width = data.draw(st.integers(1, len(q) - 1))
    got = Inclusion(*classes_of(q), width)(q)
    np.testing.assert_allclose(got, naive.inclusion(q, width), rtol=1e-7, atol=1e-12)
    assert abs(got.sum() - width) < 1e-9


@pytest.mark.parametrize(("size", "width"), [(300, 1), (300, 40), (300, 299), (50_000, 200)])
def test_probabilities_sum_to_k(size: int, width: int) -> None:
    q = 1 / np.arange(1.0, size + 1)
    q /= q.sum()
    got = Inclusion(*classes_of(q), width)(q)
    assert abs(got.sum() / width - 1) < 1e-7
    assert (np.diff(got) < 1e-15).all()
    assert (got > 0).all()
    assert (got <= 1).all()
    equal = Inclusion(np.array([1.0 / size]), np.array([float(size)]), width)
    np.testing.assert_allclose(equal(np.array([1.0 / size])), width / size, rtol=1e-9)


def test_classes_and_grids_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    q = 1 / np.arange(1.0, 801) ** 0.3
    q /= q.sum()
    exact = Inclusion(*classes_of(q), 30)
    monkeypatch.setattr(inclusion, "_GRID", 4096)
    wanted = exact(q)
    monkeypatch.setattr(inclusion, "_GRID", 512)
    monkeypatch.setattr(inclusion, "_EXACT", 10)
    rates, counts = classes_of(q)
    assert len(rates) < 800
    assert counts.sum() == 800
    np.testing.assert_allclose((rates * counts).sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(Inclusion(rates, counts, 30)(q), wanted, rtol=3e-6)


def test_rates_of_zero() -> None:
    rates, counts = classes_of(np.array([0.0, 0.5, 0.25, 0.25]))
    assert rates.tolist() == [0.25, 0.5]
    assert counts.tolist() == [2.0, 1.0]
    law = Inclusion(rates, counts, 2)
    assert law(np.array([[0.0, 0.5]]))[0, 0] == 0.0
    assert law(np.zeros(0)).shape == (0,)
