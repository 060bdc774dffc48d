"""Draws a call at a time, for a quick look while a kernel is being written.

`pytest bench -k draws`. What the project claims is measured side by side by `make bench`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import floor
from bench.ours import Buffers, check_draws
from bench.rivals import MissingError, NumPyRejection, PythonLoop, multinomial_call, vose_call
from bench.worlds import Known, gowalla, zipf_weights
from fastneg import AliasTable, PopularitySampler, UniformSampler, train_instances

DRAWS = 1 << 20
SIZES = [10_000, 1_000_000]
Floats = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=SIZES, ids=lambda n: f"{n:,} items")
def weights(request: pytest.FixtureRequest) -> Floats:
    return zipf_weights(request.param)


@pytest.fixture(scope="module")
def known() -> Known:
    """30,000 users with 27 positives each on average over 41,000 items."""
    return gowalla(stand_in=True)


@pytest.mark.parametrize("variant", floor.GATHERS)
def test_draws_floor_gather(benchmark: Any, weights: Floats, variant: str) -> None:
    words, buffers = np.arange(len(weights), dtype=np.uint64), Buffers(DRAWS)
    benchmark.group = f"draws, {len(weights):,} items"
    benchmark(lambda: floor.gather(variant, words, buffers.items))
    check_draws(buffers.items, np.ones(len(weights)))


@pytest.mark.parametrize("variant", floor.ENTRIES)
def test_draws_floor_entries(benchmark: Any, weights: Floats, variant: str) -> None:
    entries, buffers = np.zeros(2 * len(weights), dtype=np.uint64), Buffers(DRAWS)
    entries[::2] = np.arange(len(weights))
    entries.view(np.float32)[2::4] = -np.arange(len(weights))
    benchmark.group = f"draws, {len(weights):,} items"
    benchmark(lambda: floor.gather_entries(variant, entries, buffers.items, buffers.log_q))
    check_draws(buffers.items, np.ones(len(weights)))
    assert (buffers.log_q == -buffers.items.astype(np.float32)).all()


def test_draws_alias_table(benchmark: Any, weights: Floats) -> None:
    table = AliasTable(weights)
    benchmark.group = f"draws, {len(weights):,} items"
    check_draws(benchmark(lambda: table.draw(DRAWS, row=0)).numpy(), weights)


@pytest.mark.parametrize("make", [multinomial_call, vose_call])
def test_draws_rivals(benchmark: Any, weights: Floats, make: Any) -> None:
    benchmark.group = f"draws, {len(weights):,} items"
    try:
        call = make(weights, DRAWS)
    except MissingError as missing:
        pytest.skip(str(missing))
    check_draws(benchmark.pedantic(call, rounds=3), weights)


@pytest.mark.parametrize("num_negatives", [1, 8, 64])
@pytest.mark.parametrize("log_q", [False, True], ids=["ids", "ids and log_q"])
@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_draws_excluding_positives(
    benchmark: Any, known: Known, kind: str, log_q: bool, num_negatives: int
) -> None:
    benchmark.group = f"excluding positives, 8,192 rows x {num_negatives}"
    sampler: Any = UniformSampler(known.interactions)
    if kind == "popularity":
        sampler = PopularitySampler(known.interactions, exponent=1.0)
    users = known.rows(8192)
    drawn = benchmark(lambda: sampler.sample(users, num_negatives, log_q=log_q))
    assert drawn.items.shape == (8192, num_negatives)
    assert (drawn.log_q is not None) == log_q
    assert known.positives_among(users, drawn.items.numpy()) == 0


@pytest.mark.parametrize("make", [NumPyRejection, PythonLoop])
def test_draws_by_hand(benchmark: Any, known: Known, make: Any) -> None:
    benchmark.group = "excluding positives, 8,192 rows x 8"
    users = known.rows(8192)
    drawn = benchmark.pedantic(make(known).call(users, 8), rounds=3)
    assert drawn.shape == (8192, 8)
    assert known.positives_among(users, drawn) == 0


def test_draws_train_instances(benchmark: Any, known: Known) -> None:
    benchmark.group = "train instances, 20,000 pairs x 4"
    pairs = known.interactions
    users, items = pairs.row_users[:20_000], pairs.row_items[:20_000]
    result = benchmark(lambda: train_instances(users, items, 4, pairs.num_items))
    assert [len(column) for column in result] == [100_000] * 3
