"""One bound for all engines: each gives the slow twin's windows, whatever the vectors' lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.mining import visits
from fastneg.mining.bounds import product_slack, torch_share
from fastneg.mining.exact import ExactSearch, plan_blocks
from fastneg.mining.faiss_index import FaissSearch
from fastneg.mining.held_out import true_ranks
from fastneg.mining.ivf import IvfSearch
from fastneg.mining.packed import HAS_AMX
from fastneg.mining.tile_search import TilePlan, TileSearch
from tests.mining.helpers import lists_of, positives_for
from tests.naive import mining as naive

SCALES = [1e-30, 1e-23, 1e-22, 3e-22, 1e-21, 1e-20, 1e-18, 1e-10, 1.0, 1e10, 1e18]
WINDOW, NUM_ITEMS, NUM_QUERIES = (4, 60), 2_500, 8


def _exact(items, arithmetic):
    blocks = plan_blocks(NUM_QUERIES, NUM_ITEMS, items.shape[1], WINDOW[1], 1 << 28, call="x")
    return ExactSearch(items, blocks, torch.device("cpu"), arithmetic)


def _ivf(items):
    search = IvfSearch(items, 12, 1 << 28, WINDOW[1], 0, call="x")
    search.set_effort(12)
    return search


def _ivf_by_panels(items):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "HAS_AMX", False)
        return _ivf(items)


ENGINES = {
    "float32": lambda items: _exact(items, "float32"),
    "bfloat16": lambda items: _exact(items, "bfloat16"),
    "ivf": _ivf_by_panels,
    "faiss": lambda items: FaissSearch(items, "Flat", 1 << 28, NUM_ITEMS, 64, call="x"),
}
if HAS_AMX:
    ENGINES["ivf by tiles"] = _ivf
    ENGINES["tiles"] = lambda items: TileSearch(items, TilePlan(64, 4 * WINDOW[1] + 256, 0))


def world(width, scales):
    """Queries and items at two scales, zero rows among both, positives."""
    rng = np.random.default_rng(width)
    queries, items = (
        (rng.standard_normal((rows, width)) * scale).astype(np.float32)
        for rows, scale in zip((NUM_QUERIES, NUM_ITEMS), scales, strict=True)
    )
    queries[2] = items[::50] = 0.0
    return queries, items, positives_for(rng, NUM_QUERIES, NUM_ITEMS, 30)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_engine_gives_the_windows_of_the_slow_twin(engine, scale):
    for width in (5, 64):
        queries, items, sets = world(width, (scale, scale))
        search = ENGINES[engine](items)
        # FAISS alone chooses by its own products: it is asked for everything
        window = (WINDOW[0], NUM_ITEMS) if engine == "faiss" else WINDOW
        found = search.find(queries, lists_of(sets), window)
        for q in range(NUM_QUERIES):
            scores = naive.scores_of(queries[q], items)
            wanted = naive.ranking(scores, sets[q])[window[0] - 1 : window[1]]
            assert found.items[q, : len(wanted)].tolist() == wanted
            np.testing.assert_array_equal(found.scores[q, : len(wanted)], scores[wanted])


@pytest.mark.parametrize("scales", [(1e-30, 1e18), (1e18, 1e-30), (1e-38, 1e4), (1e-44, 1e20)])
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "faiss"])
def test_tiny_vectors_against_huge_ones(engine, scales):
    queries, items, sets = world(16, scales)
    found = ENGINES[engine](items).find(queries, lists_of(sets), WINDOW)
    for q in range(NUM_QUERIES):
        scores = naive.scores_of(queries[q], items)
        wanted = naive.ranking(scores, sets[q])[WINDOW[0] - 1 : WINDOW[1]]
        assert found.items[q].tolist() == wanted


@pytest.mark.parametrize("scale", SCALES)
def test_ranks_of_held_out_items_are_those_of_the_slow_twin(scale):
    queries, items, sets = world(64, (scale, scale))
    wanted = [set(range(0, NUM_ITEMS, 97)) - known for known in sets]
    lists = lists_of(wanted)
    ranks = true_ranks(queries, items, lists_of(sets), lists, torch.device("cpu"))
    for q in range(NUM_QUERIES):
        order = naive.ranking(naive.scores_of(queries[q], items), sets[q])
        for place in range(lists.starts[q], lists.stops[q]):
            assert ranks[place] == 1 + order.index(lists.items[place])


def test_the_slack_bounds_torchs_products():
    rng = np.random.default_rng(0)
    for width in (1, 17, 64, 300):
        queries = rng.standard_normal((50, width)).astype(np.float32)
        items = rng.standard_normal((500, width)).astype(np.float32)
        products = (torch.tensor(queries) @ torch.tensor(items).T).numpy()
        exact = (queries.astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)
        longest = float(np.linalg.norm(items.astype(np.float64), axis=1).max())
        slack = product_slack(queries, longest, torch_share(width))
        assert (np.abs(products.astype(np.float64) - exact) <= slack[:, None]).all()
        assert slack.max() < 1e-4 * np.linalg.norm(queries, axis=1).max() * longest


def test_a_precision_that_torch_does_not_tell_is_taken_to_be_the_coarsest(monkeypatch):
    fine = torch_share(64)

    def refuses():
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuses)
    assert torch_share(64) > 2.0**-7 > fine
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert torch_share(64) > 2.0**-7
