"""Words against Python's integers, and whether they look random along every axis."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.kernels import rng
from fastneg.streams import mix64
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, chi_square

WORDS = st.integers(0, 2**64 - 1)
EDGES = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]


@numba.njit
def _word(key, row, draw, attempt):
    return rng.word(rng.row_key(key, row), draw, attempt)


@numba.njit
def _words(key, rows, draws, attempts):
    out = np.empty((rows, draws, attempts), dtype=np.uint64)
    for r in range(rows):
        start = rng.row_key(key, np.uint64(r))
        for d in range(draws):
            for a in range(attempts):
                out[r, d, a] = rng.word(start, np.uint64(d), np.uint64(a))
    return out


@numba.njit
def _product(a, b):
    return rng.multiply_high(a, b)


@numba.njit
def _unit(w):
    return rng.unit_interval(w)


@given(WORDS, WORDS, WORDS, st.integers(0, 127))
def test_word_is_the_formula(key: int, row: int, draw: int, attempt: int) -> None:
    arguments = (np.uint64(x) for x in (key, row, draw, attempt))
    assert int(_word(*arguments)) == naive.word(key, row, draw, attempt)


def test_mix64_has_one_twin_in_each_place() -> None:
    for x in EDGES:
        assert naive.mix64(x) == mix64(x)
    # SplitMix64 seeded with 0: the published first outputs
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [naive.mix64((i + 1) * 0x9E3779B97F4A7C15 & naive.WORD) for i in range(3)] == published


@given(WORDS, WORDS)
def test_multiply_high(a: int, b: int) -> None:
    assert int(_product(np.uint64(a), np.uint64(b))) == (a * b) >> 64


def test_multiply_high_at_the_edges() -> None:
    for a in EDGES:
        for b in EDGES:
            assert int(_product(np.uint64(a), np.uint64(b))) == (a * b) >> 64


def test_unit_interval_never_touches_its_ends() -> None:
    assert _unit(np.uint64(0)) == 2.0**-54
    assert _unit(np.uint64(2**64 - 1)) == np.nextafter(1.0, 0.0)
    for w in (1 << 40, 12345 << 11, 2**63, 2**63 + 2**52):
        assert _unit(np.uint64(w)) == ((w >> 11) + 0.5) * 2.0**-53


def _byte(words: np.ndarray, byte: int) -> np.ndarray:
    return ((words >> np.uint64(8 * byte)) & np.uint64(255)).astype(np.int64)


@pytest.mark.parametrize("shape", [(60_000, 1, 1), (1, 60_000, 1), (250, 240, 1), (100, 60, 10)])
def test_bytes_are_uniform_along_rows_draws_and_attempts(shape: tuple[int, int, int]) -> None:
    words = _words(np.uint64(11), *shape).reshape(-1)
    flat = np.full(256, 1 / 256)
    for byte in range(8):
        assert chi_square(_byte(words, byte), flat) > LEVEL
    following = words[1:] ^ words[:-1]  # neighbours share nothing either
    for byte in range(8):
        assert chi_square(_byte(following, byte), flat) > LEVEL
    assert len(np.unique(words)) == words.size


def test_the_check_sees_words_that_are_only_a_counter() -> None:
    counter = np.arange(60_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    difference = counter[1:] ^ counter[:-1]
    assert chi_square(_byte(difference, 7), np.full(256, 1 / 256)) < LEVEL
