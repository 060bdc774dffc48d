"""Draws per second, against the floors of the machine and the naive ways.

Groups of one size are to be read as ratios: `make bench ARGS="-k draws"`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.floor import gather_words, random_words
from fastneg import Interactions, PopularitySampler, UniformSampler, train_instances
from fastneg.samplers.alias_table import AliasTable
from fastneg.threads import run_chunks

NUM_DRAWS = 1 << 20
SIZES = [10_000, 1_000_000, 10_000_000]


def zipf_counts(num_items: int) -> np.ndarray[Any, Any]:
    """Popularity counts with a realistic tail, in arbitrary id order."""
    ranks = np.arange(1, num_items + 1, dtype=np.float64)
    counts = np.maximum(1, 5_000_000 / ranks**0.9).astype(np.int64)
    return np.random.default_rng(0).permutation(counts)


@pytest.fixture(scope="module", params=SIZES, ids=lambda n: f"{n:,} items")
def table(request: pytest.FixtureRequest) -> AliasTable:
    return AliasTable(zipf_counts(request.param).astype(np.float64) ** 0.75)


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    """30,000 users with 27 positives each on average over 41,000 items."""
    rng = np.random.default_rng(1)
    popularity = zipf_counts(41_000) ** 0.7
    users = rng.integers(0, 30_000, 810_000)
    items = rng.choice(41_000, 810_000, p=popularity / popularity.sum())
    return Interactions.from_codes(users, items, num_users=30_000, num_items=41_000)


def test_floor_random_words(benchmark: Any) -> None:
    out = np.empty(NUM_DRAWS, dtype=np.uint64)
    benchmark.group = "floor"
    benchmark(lambda: run_chunks(lambda i, j: random_words(np.uint64(1), i, out[i:j]), NUM_DRAWS))
    assert len(np.unique(out)) == NUM_DRAWS


def test_floor_gather(benchmark: Any, table: AliasTable) -> None:
    out = np.empty(NUM_DRAWS, dtype=np.uint64)
    benchmark.group = f"draws, {table.num_items:,} items"
    benchmark(
        lambda: run_chunks(
            lambda i, j: gather_words(table.cells, np.uint64(1), i, out[i:j]), NUM_DRAWS
        )
    )
    assert np.isin(out[:100], table.cells).all()


def test_alias_table(benchmark: Any, table: AliasTable) -> None:
    benchmark.group = f"draws, {table.num_items:,} items"
    drawn = benchmark(lambda: table.draw(NUM_DRAWS, row=0))
    assert drawn.shape == (NUM_DRAWS,)
    expected = table.probabilities()[:1000].sum() * NUM_DRAWS
    assert abs(int((drawn < 1000).sum()) - expected) < 6 * np.sqrt(expected) + 6


def test_torch_multinomial(benchmark: Any, table: AliasTable) -> None:
    benchmark.group = f"draws, {table.num_items:,} items"
    weights = torch.from_numpy(table.probabilities())
    drawn = benchmark.pedantic(
        lambda: torch.multinomial(weights, NUM_DRAWS, replacement=True), rounds=3
    )
    assert drawn.shape == (NUM_DRAWS,)


@pytest.mark.parametrize("num_negatives", [1, 8, 64])
@pytest.mark.parametrize("log_q", [False, True], ids=["ids", "ids and log_q"])
@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_excluding_positives(
    benchmark: Any, interactions: Interactions, kind: str, log_q: bool, num_negatives: int
) -> None:
    benchmark.group = f"excluding positives, 8,192 rows x {num_negatives}"
    sampler = (
        UniformSampler(interactions)
        if kind == "uniform"
        else PopularitySampler(interactions, exponent=1.0)
    )
    rows = np.random.default_rng(2).integers(0, interactions.num_rows, 8192)
    users = interactions.row_users[rows]
    drawn = benchmark(lambda: sampler.sample(users, num_negatives, log_q=log_q))
    assert drawn.items.shape == (8192, num_negatives)
    known = interactions.positive_mask(users[:64], np.arange(interactions.num_items)).numpy()
    assert not np.take_along_axis(known, drawn.items[:64].numpy(), axis=1).any()


def test_train_instances(benchmark: Any, interactions: Interactions) -> None:
    benchmark.group = "train instances, 20,000 pairs x 4"
    users, items = interactions.row_users[:20_000], interactions.row_items[:20_000]
    result = benchmark(lambda: train_instances(users, items, 4, interactions.num_items))
    assert [len(column) for column in result] == [100_000] * 3


def test_python_loop(benchmark: Any, interactions: Interactions) -> None:
    benchmark.group = "train instances, 20,000 pairs x 4"
    users = interactions.row_users[:20_000].tolist()
    items = interactions.row_items[:20_000].tolist()
    num_items = interactions.num_items

    def loop() -> int:
        pairs = set(zip(users, items, strict=True))
        found = []
        for u, i in zip(users, items, strict=True):
            found.append((u, i, 1))
            for _ in range(4):
                j = np.random.randint(num_items)  # noqa: NPY002  (the loop as it is known)
                while (u, j) in pairs:
                    j = np.random.randint(num_items)  # noqa: NPY002
                found.append((u, j, 0))
        return len(found)

    assert benchmark.pedantic(loop, rounds=3) == 100_000
