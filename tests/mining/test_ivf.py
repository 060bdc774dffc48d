"""Batched IVF: exact among the lists it visits, whatever the block, the threads, the order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.mining import lists as lists_of
from fastneg.mining import packed, visits
from fastneg.mining.calibrate import calibrate, find_all, measure_recall
from fastneg.mining.engines import make_engine, open_engine, prefers_ivf
from fastneg.mining.ivf import IvfSearch, num_lists_for
from fastneg.mining.job import Job
from fastneg.mining.search import no_positives, read_positives
from fastneg.mining.window import WindowRules
from fastneg.threads import set_num_threads
from tests.mining.helpers import csr, integers, positives_for
from tests.naive import mining as naive


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_num_threads(None)


@pytest.fixture(autouse=True, params=["panels", "tiles"])
def arithmetic(request, monkeypatch):
    """Every test here holds for products by panels and, where there are some, by tiles."""
    tiles = request.param == "tiles"
    if tiles and not visits.HAS_AMX:
        pytest.skip("this processor has no matrix tiles, or may not use them")
    monkeypatch.setattr(visits, "HAS_AMX", tiles)
    return "tiles" if tiles else "float32"


def mixture(rng, num_items, num_queries, width=16, components=40, spread=0.5):
    """Clusters whose coordinates matter less and less, items of unequal length."""
    scale = np.arange(1, width + 1) ** -0.7
    centres = rng.standard_normal((components, width)) * scale
    draw = lambda n: (  # noqa: E731
        centres[rng.integers(0, components, n)] + spread * scale * rng.standard_normal((n, width))
    )
    items = draw(num_items) * np.exp(0.3 * rng.standard_normal((num_items, 1)))
    return items.astype(np.float32), draw(num_queries).astype(np.float32)


def search_of(items, num_lists, nprobe, depth=20, memory=1 << 28, seed=0, saved=None):
    search = IvfSearch(items, num_lists, memory, depth, seed, call="x", saved=saved)
    search.set_effort(nprobe)
    return search


def expected(search, nprobe, items, queries, sets, window):
    """Windows straight from the definition, over the lists that are nearest."""
    saved = search.arrays()
    shape = (len(queries), window[1] - window[0] + 1)
    ids, scores = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    for q, (query, positives) in enumerate(zip(queries, sets, strict=True)):
        near = naive.ranking(naive.scores_of(query, saved["centroids"]), set())[:nprobe]
        held = set(np.flatnonzero(np.isin(saved["list_of_item"], near)).tolist())
        all_scores = naive.scores_of(query, items)
        order = [i for i in naive.ranking(all_scores, set(positives)) if i in held]
        part = order[window[0] - 1 : window[1]]
        ids[q, : len(part)] = part
        scores[q, : len(part)] = all_scores[part]
    return ids, scores


def agree(found, wanted):
    np.testing.assert_array_equal(found.items, wanted[0])
    np.testing.assert_array_equal(found.scores, wanted[1])


@pytest.mark.parametrize("nprobe", [1, 3, 11])
@pytest.mark.parametrize("window", [(1, 5), (4, 20), (50, 90), (300, 420)])
def test_exact_among_the_lists_visited_with_ties_everywhere(nprobe, window):
    rng = np.random.default_rng(nprobe)
    items, queries = integers(rng, 333, 7), integers(rng, 41, 7)
    sets = positives_for(rng, 41, 333, 30)
    lists = read_positives(csr(sets), None, 41, 333, call="x")
    search = search_of(items, 11, nprobe, depth=window[1])
    agree(
        search.find(queries, lists, window), expected(search, nprobe, items, queries, sets, window)
    )


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64])
def test_exact_among_the_lists_visited_at_any_width(width):
    rng = np.random.default_rng(width)
    items, queries = mixture(rng, 700, 25, width)
    sets = positives_for(rng, 25, 700, 60)
    lists = read_positives(csr(sets), None, 25, 700, call="x")
    search = search_of(items, 13, 4, depth=60)
    found = search.find(queries, lists, (11, 60))
    agree(found, expected(search, 4, items, queries, sets, (11, 60)))


def test_all_lists_give_exact_search_at_any_block_and_threads():
    rng = np.random.default_rng(5)
    items, queries = mixture(rng, 9_000, 230)
    sets = positives_for(rng, 230, 9_000, 40)
    sets[7], sets[8] = set(), set(range(0, 9_000, 3))  # none, and thousands
    lists = read_positives(csr(sets), None, 230, 9_000, call="x")
    wanted = None
    for threads in (1, 2, 3, 7):
        set_num_threads(threads)
        little = (1 << 17) + 240_000 * threads
        for memory in (1 << 28, little):
            search = search_of(items, 30, 30, depth=120, memory=memory)
            assert (search.block_rows < 230) == (memory == little)
            found = find_all(search, queries, lists, (21, 120))
            if wanted is None:
                wanted = expected(search, 30, items, queries, sets, (21, 120))
            agree(found, wanted)


def test_what_is_found_depends_on_no_block_and_no_threads():
    rng = np.random.default_rng(6)
    items, queries = mixture(rng, 20_000, 500)
    rows = []
    for threads, step in ((1, 500), (2, 500), (7, 500), (2, 37), (3, 1)):
        set_num_threads(threads)
        search = search_of(items, 60, 5, depth=200)
        parts = [
            search.find(queries[i : i + step], no_positives(len(queries[i : i + step])), (101, 200))
            for i in range(0, 500, step)
        ]
        rows.append((np.concatenate([p.items for p in parts]), search.arrays()))
    for ids, arrays in rows[1:]:
        np.testing.assert_array_equal(ids, rows[0][0])
        np.testing.assert_array_equal(arrays["centroids"], rows[0][1]["centroids"])
        np.testing.assert_array_equal(arrays["list_of_item"], rows[0][1]["list_of_item"])


def test_made_again_from_its_arrays_it_finds_the_same():
    rng = np.random.default_rng(7)
    items, queries = mixture(rng, 5_000, 90)
    first = search_of(items, 40, 4, depth=50)
    again = search_of(items, 40, 4, depth=50, seed=99, saved=first.arrays())
    one, two = (s.find(queries, no_positives(90), (1, 50)) for s in (first, again))
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.scores, two.scores)
    assert first.facts() == again.facts()
    other = search_of(items, 40, 4, depth=50, seed=1)
    assert (other.arrays()["centroids"] != first.arrays()["centroids"]).any()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a["list_of_item"].__setitem__(3, 40),
        lambda a: a["list_of_item"].__setitem__(3, -1),
        lambda a: a.__setitem__("list_of_item", a["list_of_item"][:-1]),
        lambda a: a.__setitem__("centroids", a["centroids"][:-1]),
    ],
)
def test_stored_lists_that_do_not_fit_are_refused(spoil):
    items, _ = mixture(np.random.default_rng(7), 2_000, 1)
    saved = {name: array.copy() for name, array in search_of(items, 40, 1).arrays().items()}
    search_of(items, 40, 1, saved=saved)
    spoil(saved)
    with pytest.raises(FastnegError, match="stored lists"):
        search_of(items, 40, 1, saved=saved)


def test_near_ties_in_crowds_are_ranked_exactly():
    # Far more items than a buffer holds lie within the rounding of products of each other.
    rng = np.random.default_rng(1)
    query = rng.standard_normal((3, 48)).astype(np.float32)
    base = rng.standard_normal(48).astype(np.float32)
    items = np.repeat(base[None], 4_000, axis=0)
    items *= 1 + rng.integers(-4, 5, items.shape).astype(np.float32) * np.float32(2.0**-23)
    search = search_of(items, 5, 5, depth=100)
    wanted = expected(search, 5, items, query, [set()] * 3, (1, 100))
    agree(search.find(query, no_positives(3), (1, 100)), wanted)
    by_products = np.argsort(-(items @ query[0]), kind="stable")[:100]
    assert (by_products != wanted[0][0]).any()  # the products alone would have been wrong


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_items_come_in_the_order_of_their_ids(value):
    items = np.full((3_000, 8), value, np.float32)
    search = search_of(items, 9, 9, depth=40)
    found = search.find(np.ones((20, 8), np.float32), no_positives(20), (11, 40))
    assert (found.items == np.arange(10, 40)).all()
    assert (found.scores == 8 * value).all()


def test_zero_queries_empty_lists_and_too_few_items():
    rng = np.random.default_rng(2)
    items = np.repeat(integers(rng, 6, 4), 50, axis=0)  # six points: most lists stay empty
    queries = np.concatenate([np.zeros((2, 4), np.float32), integers(rng, 10, 4)])
    sets = [set(), set(range(300)), *positives_for(rng, 10, 300, 290)]
    lists = read_positives(csr(sets), None, 12, 300, call="x")
    search = search_of(items, 20, 3, depth=250)
    assert np.bincount(search.arrays()["list_of_item"], minlength=20).min() == 0
    wanted = expected(search, 3, items, queries, sets, (51, 250))
    assert (wanted[0] == -1).any()
    agree(search.find(queries, lists, (51, 250)), wanted)


def test_positives_never_come_back():
    rng = np.random.default_rng(3)
    items, queries = mixture(rng, 8_000, 300)
    exact = queries.astype(np.float64) @ items.T.astype(np.float64)
    best = np.argsort(-exact, axis=1)
    counts = rng.integers(0, 2_000, 300)
    sets = [set(best[q, : counts[q]].tolist()) for q in range(300)]  # the very best are positives
    lists = read_positives(csr(sets), None, 300, 8_000, call="x")
    found = search_of(items, 50, 50, depth=100).find(queries, lists, (1, 100))
    for q in range(300):
        assert not sets[q] & set(found.items[q].tolist())
        assert found.items[q].min() >= 0


def test_lists_follow_the_squared_distance():
    rng = np.random.default_rng(4)
    items, _ = mixture(rng, 3_000, 1)
    centroids = items[:70]
    got = lists_of.assign(items, centroids)
    distance = ((items[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    chosen = distance[np.arange(3_000), got]
    assert (chosen <= distance.min(axis=1) + 1e-5).all()
    trained = lists_of.train_centroids(items, 70, 0)
    tight = ((items - trained[lists_of.assign(items, trained)]) ** 2).sum()
    assert tight < 0.8 * chosen.sum()


def test_recall_is_reached_with_few_lists_and_measured():
    rng = np.random.default_rng(8)
    items, queries = mixture(rng, 30_000, 200)
    search = search_of(items, 256, 1, depth=300)
    everything = search_of(items, 256, 256, depth=300)
    true = find_all(everything, queries, no_positives(200), (101, 300))
    nprobe, recall = calibrate(search, queries, no_positives(200), (101, 300), true, 0.95)
    assert recall >= 0.95
    assert 2 <= nprobe <= 64
    assert search.facts()["nprobe"] == nprobe
    again = find_all(search, queries, no_positives(200), (101, 300))
    assert measure_recall(again, true) == recall
    search.set_effort(nprobe // 2)
    assert measure_recall(find_all(search, queries, no_positives(200), (101, 300)), true) < 0.95


def test_a_search_takes_no_more_memory_than_it_was_given():
    rng = np.random.default_rng(9)
    items, queries = mixture(rng, 4_000, 2_000)
    set_num_threads(2)
    search = search_of(items, 16, 4, depth=200, memory=2 << 20)
    rows = search.block_rows
    assert rows < 2_000
    search.find(queries[:rows], no_positives(rows), (1, 200))  # what is compiled is no buffer
    search._buffers._free.clear()
    tracemalloc.start()
    try:
        search.find(queries[:rows], no_positives(rows), (1, 200))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows * 200 * 8 <= peak <= 2 << 20


def test_too_little_memory_says_how_much_is_enough():
    items, _ = mixture(np.random.default_rng(9), 2_000, 1)
    with pytest.raises(FastnegError, match=r"memory = 1000 bytes .* give \d+") as caught:
        search_of(items, 16, 4, depth=50, memory=1000)
    enough = int(str(caught.value).split("give ")[1].split()[0])
    assert IvfSearch(items, 16, enough, 50, 0, call="x").block_rows >= 1
    with pytest.raises(FastnegError):
        IvfSearch(items, 16, enough // 2, 50, 0, call="x")


def job_of(items, queries, window=(11, 60), seed=3):
    rules = WindowRules(num_negatives=5, seed=seed)
    return Job(queries, items, no_positives(len(queries)), window, rules, 1 << 28)


def test_an_engine_is_chosen_by_size_stored_and_opened_again():
    rng = np.random.default_rng(10)
    items, queries = mixture(rng, 6_000, 300)
    job = job_of(items, queries)
    assert make_engine(job, "auto", 0.95, "cpu").search.name == "exact"
    assert not prefers_ivf(job)
    engine = make_engine(job, "ivf", 0.95, "cpu")
    assert engine.search.name == "ivf"
    assert engine.recall >= 0.95
    facts = engine.facts()
    assert facts["num_lists"] == num_lists_for(6_000) == 150
    assert facts["nprobe"] == engine.effort["nprobe"] >= 1
    opened = open_engine(job, facts, engine.arrays())
    one, two = (e.search.find(queries, job.positives, job.window) for e in (engine, opened))
    np.testing.assert_array_equal(one.items, two.items)
    assert opened.facts() == facts


def test_auto_takes_ivf_where_queries_pay_for_the_lists(arithmetic, monkeypatch):
    monkeypatch.setattr(packed, "HAS_AMX", arithmetic == "tiles")

    def asked(num_queries, num_items, depth=500):
        queries = np.broadcast_to(np.float32(0), (num_queries, 64))
        items = np.broadcast_to(np.float32(0), (num_items, 64))
        rules = WindowRules(num_negatives=5, seed=0)
        return prefers_ivf(Job(queries, items, no_positives(1), (101, depth), rules, 1))

    assert asked(1_000_000, 1_000_000)
    assert asked(100_000, 1_000_000)
    assert not asked(8_192, 1_000_000)
    assert not asked(1_000_000, 10_000)
    assert not asked(1_000_000, 1_000_000, depth=100_000)
    assert [num_lists_for(n) for n in (1, 50, 10_000, 10**6)] == [1, 1, 250, 4096]
