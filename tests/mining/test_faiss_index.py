"""FAISS indexes: exact ones agree with exact search, others are calibrated and measured."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fastneg.mining.faiss_index import FaissSearch, ivf_factory
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.search import no_positives


def clustered(seed, num_items=4000, num_queries=120, width=16):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, width)) * 2
    items = centres[rng.integers(0, 40, num_items)] + rng.standard_normal((num_items, width))
    queries = centres[rng.integers(0, 40, num_queries)] + rng.standard_normal((num_queries, width))
    return queries.astype(np.float32), items.astype(np.float32)


OPTIONS = {"window": (21, 100), "strategy": "top", "num_negatives": 80, "progress": False}


def positives(seed, num_queries, num_items):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, num_queries)
    return np.concatenate(([0], np.cumsum(counts))), rng.integers(0, num_items, counts.sum())


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize("search", ["faiss:Flat", "faiss:IVF8,Flat"])
def test_an_index_that_sees_everything_gives_the_exact_answer(search, metric):
    queries, items = clustered(0)
    lists = positives(1, len(queries), len(items))
    exact = mine_hard_negatives(
        queries, items, positives=lists, metric=metric, search="exact", **OPTIONS
    )
    found = mine_hard_negatives(
        queries, items, positives=lists, metric=metric, search=search, recall=1.0, **OPTIONS
    )
    assert found.report.recall == 1.0
    if search == "faiss:Flat":
        np.testing.assert_array_equal(found.items, exact.items)
        np.testing.assert_array_equal(found.scores, exact.scores)
        np.testing.assert_array_equal(found.ranks, exact.ranks)
        assert found.report.effort == {}
    else:
        assert (found.items == exact.items).mean() > 0.99


def test_ivf_reaches_the_recall_asked_with_no_more_probes_than_it_takes():
    queries, items = clustered(0, num_items=6000, num_queries=200)
    exact = mine_hard_negatives(queries, items, search="exact", **OPTIONS)
    probes = []
    for recall in (0.5, 0.9, 0.999):
        mined = mine_hard_negatives(queries, items, search="ivf", recall=recall, **OPTIONS)
        report = mined.report
        assert report.search == "ivf"
        assert report.recall >= recall
        assert report.recall_asked == recall
        assert report.recall_queries == 200
        rows = zip(exact.items, mined.items, strict=True)
        shared = np.mean([np.isin(true, found).mean() for true, found in rows])
        assert shared == pytest.approx(report.recall, abs=1e-9)  # the sample was all queries
        probes.append(report.effort["nprobe"])
    assert probes[0] < probes[-1]
    assert probes[0] >= 1


@pytest.mark.parametrize("factory", ["HNSW16", "IVF16,PQ8x4", "PCA8,IVF16,Flat", "IVF16,SQ8"])
def test_other_indexes(factory):
    queries, items = clustered(2, num_items=1500, num_queries=60)
    mined = mine_hard_negatives(
        queries,
        items,
        search=f"faiss:{factory}",
        recall=0.3,
        positives=positives(3, 60, 1500),
        **OPTIONS,
    )
    assert 0.3 <= mined.report.recall <= 1.0
    assert set(mined.report.effort) <= {"nprobe", "efSearch"}
    assert mined.report.missing_negatives == (mined.items < 0).sum()  # a few probes find few
    scores = np.einsum("qd,qnd->qn", queries.astype(np.float64), items[mined.items])
    scores[mined.items < 0] = -np.inf
    np.testing.assert_allclose(mined.scores, scores, rtol=1e-5, atol=1e-5)  # exact, not the PQ's
    assert (mined.scores[:, 1:] <= mined.scores[:, :-1]).all()
    indptr, codes = positives(3, 60, 1500)
    for q in range(60):
        assert not set(codes[indptr[q] : indptr[q + 1]]) & set(mined.items[q].tolist())


def test_a_recall_out_of_reach_warns_and_is_reported():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((50, 32)).astype(np.float32)
    items = rng.standard_normal((1500, 32)).astype(np.float32)
    with pytest.warns(UserWarning, match="of the true window members at best, and recall = 0.95"):
        mined = mine_hard_negatives(queries, items, search="faiss:PQ4x4", **OPTIONS)
    assert mined.report.recall < 0.95
    assert (mined.items >= 0).all()


def test_the_result_does_not_depend_on_blocks():
    queries, items = clustered(4, num_items=2000, num_queries=70)
    lists = positives(5, 70, 2000)
    for search in ("faiss:HNSW8", "faiss:IVF16,Flat"):
        one, other = (
            mine_hard_negatives(
                queries, items, positives=lists, search=search, memory=memory, recall=0.5, **OPTIONS
            )
            for memory in (1 << 30, 200_000)
        )
        assert one.report.block_rows != other.report.block_rows
        np.testing.assert_array_equal(one.items, other.items)


@pytest.mark.parametrize("factory", ["IVF16,PQ8x4", "HNSW16"])
@pytest.mark.parametrize("exponents", [(100, -20), (-100, -20), (100, -120)])
def test_very_long_and_very_short_vectors_are_found_as_well_as_ordinary_ones(factory, exponents):
    """FAISS squares lengths: without scaling it ends the process, or finds nothing."""
    queries, items = clustered(4, num_items=1_500, num_queries=40)
    true = np.argsort(-(queries @ items.T), axis=1)[:, :30]
    reached = []
    for up in ((0, 0), exponents):
        search = FaissSearch(np.ldexp(items, up[0]), factory, 1 << 28, 30, 0, call="x")
        search.set_effort(min(search.most_effort, 64))
        found = search.find(np.ldexp(queries, up[1]), no_positives(40), (1, 30)).items
        reached.append(np.mean([np.isin(*rows).mean() for rows in zip(true, found, strict=True)]))
    assert reached[1] > reached[0] - 0.1


def test_list_counts_suit_the_catalog():
    assert ivf_factory(1) == "IVF1,Flat"
    assert ivf_factory(400) == "IVF10,Flat"
    assert ivf_factory(100_000) == "IVF1024,Flat"
    assert ivf_factory(1_000_000) == "IVF4096,Flat"


def test_faiss_gets_its_threads_back():
    import faiss

    before = faiss.omp_get_max_threads()
    _, items = clustered(0, 500, 20)
    search = FaissSearch(items, "IVF4,Flat", 1 << 20, 50, 0, call="x")
    assert faiss.omp_get_max_threads() == before
    assert search.effort == "nprobe"
    assert search.most_effort == 4


@pytest.mark.parametrize("first", ["torch", "faiss", "fastneg.mining.miner"])
def test_torch_and_faiss_live_in_one_process_whoever_comes_first(first):
    code = f"""
import {first}
import numpy as np, torch, faiss
from fastneg.mining.miner import mine_hard_negatives
rng = np.random.default_rng(0)
q, x = rng.standard_normal((40, 8)), rng.standard_normal((900, 8))
kinds = ("exact", "ivf", "faiss:Flat")
out = [mine_hard_negatives(q, x, search=s, recall=1.0, window=(1, 50), progress=False).items
       for s in kinds]
torch.randn(300, 300) @ torch.randn(300, 300)
assert (out[0] == out[2]).all()
assert (out[0] == out[1]).mean() > 0.99
print("well")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
