"""Tables over classes of equal counts: exact to the last unit, and the same after every journey."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import FastnegError
from fastneg.samplers.count_classes import CountClasses, CountClassTable, find_classes
from fastneg.samplers.popularity import PopularitySampler, popularity_weights
from fastneg.streams import key_of, stream_of
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square

WORLDS: dict[str, list[float]] = {
    "one item": [3.0],
    "one value": [4.0] * 30,
    "one value and zeros": [0.0, 4.0, 4.0, 0.0, 4.0],
    "ordered": [9.0, 9.0, 5.0, 5.0, 5.0, 1.0, 1.0, 0.0, 0.0],
    "scattered": [5.0, 9.0, 0.0, 1.0, 5.0, 9.0, 1.0, 5.0, 0.0],
    "rising": [1.0, 2.0, 2.0, 3.0],
    "all different": np.random.default_rng(0).permutation(300).tolist(),
    "floats": [0.25, 1e-30, 1e30, 0.25, 1e-9, 1e30, 0.25],
    "zipf": np.floor(3000 / np.arange(1, 5001)).tolist(),
}
WORLDS["shuffled zipf"] = np.random.default_rng(2).permutation(WORLDS["zipf"][:900]).tolist()


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


def _classes(counts: Any) -> CountClasses:
    classes = find_classes(np.array(counts, dtype=np.float64), always=True)
    assert classes is not None
    return classes


def _table(counts: Any, *, exponent: float = 0.75, **options: Any) -> CountClassTable:
    classes = _classes(counts)
    return CountClassTable(classes, popularity_weights(classes.values, exponent), **options)


# ------------------------------------------------------------------ classes


def _check_classes(counts: list[float]) -> None:
    values = np.array(counts, dtype=np.float64)
    classes = _classes(counts)
    assert classes.num_items == len(counts)
    order = classes.order if len(classes.order) else np.arange(len(counts))
    assert len(classes.order) == 0 or not (values[:-1] >= values[1:]).all()
    np.testing.assert_array_equal(order, np.lexsort((np.arange(len(counts)), -values)))
    np.testing.assert_array_equal(np.repeat(classes.values, classes.sizes), values[order])
    assert not np.signbit(classes.values).any()
    np.testing.assert_array_equal(classes.starts, np.cumsum(classes.sizes) - classes.sizes)
    np.testing.assert_array_equal(classes.by_size, np.argsort(-classes.sizes, kind="stable"))

    distinct, sizes = np.unique(values, return_counts=True)
    distinct, sizes = distinct[::-1], sizes[::-1]
    some = distinct > 0 if values.any() else distinct == 0
    if (sizes[some] == 1).any():
        np.testing.assert_array_equal(classes.values, distinct)
        np.testing.assert_array_equal(classes.sizes, sizes)
    else:  # one item of the smallest class stands alone, before the others of its value
        alone = np.flatnonzero(some)[np.argmin(sizes[some])]
        np.testing.assert_array_equal(classes.values, np.insert(distinct, alone, distinct[alone]))
        sizes[alone] -= 1
        np.testing.assert_array_equal(classes.sizes, np.insert(sizes, alone, 1))
    some = classes.values > 0 if values.any() else classes.values == 0
    assert (classes.sizes[some] == 1).any()


@pytest.mark.parametrize("name", [*WORLDS, "no counts at all"])
def test_classes_are_the_distinct_counts(name: str) -> None:
    _check_classes(WORLDS.get(name, [0.0, -0.0, 0.0]))


COUNT = st.one_of(
    st.just(0.0), st.just(-0.0), st.integers(0, 6).map(float), st.floats(0, 1e308, width=64)
)


@given(st.lists(COUNT, min_size=1, max_size=60), st.booleans())
def test_classes_of_any_counts(counts: list[float], ordered: bool) -> None:
    _check_classes(sorted(counts, reverse=True) if ordered else counts)


def test_when_classes_pay() -> None:
    zipf = np.floor(3000 / np.arange(1, 100_001) ** 0.7)
    assert find_classes(zipf[:65_535]) is None  # too few items
    found = find_classes(zipf[:65_536])
    assert found is not None
    assert len(found.order) == 0
    found = find_classes(zipf)
    assert found is not None
    assert len(found.values) == len(np.unique(zipf))
    scattered = np.random.default_rng(1).permutation(zipf)
    assert find_classes(scattered) is None
    always = find_classes(scattered, always=True)
    assert always is not None
    np.testing.assert_array_equal(always.values, found.values)
    every = np.sort(np.random.default_rng(1).random(100_000))[::-1].copy()
    assert find_classes(every) is None
    assert find_classes(every, always=True) is None  # more than 65,535 values
    assert find_classes(np.floor(every * 12_499)) is not None  # one value in eight items
    assert find_classes(np.floor(every * 13_500)) is None


# ------------------------------------------------------------------ the table


def _cell_masses(table: CountClassTable) -> list[int]:
    """What each class gets of the cells, in whole numbers."""
    masses = [0] * len(table.cells)
    for index, cell in enumerate(table.cells.tolist()):
        threshold, alias = divmod(cell, 1 << 24)
        masses[index] += threshold
        masses[alias] += (1 << 40) - threshold
    assert not any(masses[len(table.class_masses) :])
    return masses[: len(table.class_masses)]


def _check_table(counts: list[float], exponent: float) -> None:
    classes = _classes(counts)
    asked = popularity_weights(classes.values, exponent)
    table = CountClassTable(classes, asked)
    sizes = classes.sizes.tolist()
    own = [int(mass) for mass in table.class_masses]
    assert table.total == max(len(asked), 1024) << 40
    assert _cell_masses(table) == [m * s for m, s in zip(own, sizes, strict=True)]
    masses = [int(mass) for mass in table.masses]
    assert sum(masses) == table.total
    order = classes.order if len(classes.order) else np.arange(len(counts))
    assert [masses[item] for item in order] == np.repeat(table.class_masses, sizes).tolist()
    np.testing.assert_array_equal(table.class_masses == 0, asked == 0)
    assert table.num_reachable == np.count_nonzero(masses)

    q = table.probabilities()
    assert abs(q.sum() - 1) < 1e-12
    due = np.repeat(asked, sizes) / asked.max()
    due /= due.sum()
    spread = np.empty(len(counts))
    spread[order] = due
    off = np.abs(q - spread)
    assert table.error["total_variation"] == pytest.approx(off.sum() / 2, abs=1e-12)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(table.log_q, np.log(q), rtol=0, atol=2e-14)
    relative = (off[spread > 0] / spread[spread > 0]).max()
    assert table.error["max_relative"] == pytest.approx(relative, rel=1e-6, abs=1e-12)
    if len(classes.order):
        np.testing.assert_array_equal(
            table.class_of[order], np.repeat(np.arange(len(sizes)), sizes)
        )
        assert table.class_of.dtype == np.uint16
    else:
        assert len(table.class_of) == 0
    for array in (table.cells, table.class_masses, table.masses, table.log_q, table.class_log_q):
        assert not array.flags.writeable


@pytest.mark.parametrize("exponent", [0.75, 1.0, 0.0, -1.0])
@pytest.mark.parametrize("name", WORLDS)
def test_the_table_gives_its_masses(name: str, exponent: float) -> None:
    _check_table(WORLDS[name], exponent)


@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.integers(0, 8).map(float), st.floats(0, 1e6)), min_size=1, max_size=40)
    .filter(any)
    .filter(lambda counts: min(count for count in counts if count > 0) > 1e-6),
    st.sampled_from([0.75, 1.0, 0.0, -0.5, 3.0]),
    st.booleans(),
)
def test_tables_of_any_counts(counts: list[float], exponent: float, ordered: bool) -> None:
    _check_table(sorted(counts, reverse=True) if ordered else counts, exponent)


def test_more_classes_than_the_smallest_table_has_cells() -> None:
    counts = np.random.default_rng(3).permutation(np.arange(3000) // 2).astype(np.float64)
    _check_table(counts.tolist(), 0.75)


def test_equal_at_any_number_of_threads() -> None:
    counts = np.floor(4000 / np.arange(1, 150_001) ** 0.8)
    prints, drawn = set(), []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        table = _table(counts)
        prints.add(table.fingerprint())
        drawn.append(table.draw(200_001, row=9, log_q=True))
    assert len(prints) == 1
    for items, log_q in drawn[1:]:
        assert torch.equal(items, drawn[0][0])
        assert torch.equal(log_q, drawn[0][1])


def test_a_fingerprint_stands_still() -> None:
    table = _table(WORLDS["shuffled zipf"], exponent=0.5)  # roots are the same everywhere
    assert table.fingerprint() == "a1b334f4922a6e6b61de2d7125949c73"
    assert table.fingerprint() == _table(WORLDS["shuffled zipf"], exponent=0.5).fingerprint()
    others = [
        _table(WORLDS["shuffled zipf"], exponent=1.0),
        _table([*WORLDS["shuffled zipf"], 1.0], exponent=0.5),
        _table(sorted(WORLDS["shuffled zipf"], reverse=True), exponent=0.5),
    ]
    assert len({table.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_draws_stand_still() -> None:
    scattered = _table(WORLDS["shuffled zipf"], exponent=0.5, seed=1)
    assert scattered.draw(8, row=3).tolist() == [162, 10, 136, 763, 349, 368, 739, 787]
    ordered = _table(WORLDS["zipf"], exponent=0.5, seed=1)
    assert ordered.draw(8, row=3).tolist() == [255, 47, 609, 3, 518, 1236, 423, 2842]


# ------------------------------------------------------------------ draws


@pytest.mark.parametrize("name", ["ordered", "scattered", "shuffled zipf"])
def test_draws_word_for_word(name: str) -> None:
    table = _table(WORLDS[name], seed=11, name="words")
    classes = table.classes
    spans = list(zip(classes.starts.tolist(), classes.sizes.tolist(), strict=True))
    for row, epoch in [(0, 0), (3, 2), (2**63 - 1, 1)]:
        key = key_of(11, stream_of("words"), epoch)
        places = [naive.place_of(key, row, draw) for draw in range(150)]
        salt = int(table.salt_of(key))
        expected = [
            naive.class_draw(table.cells.tolist(), spans, classes.order, place, salt)
            for place in places
        ]
        items, log_q = table.draw(150, row=row, epoch=epoch, log_q=True)
        assert items.tolist() == expected
        assert table.draw(150, row=row, epoch=epoch).tolist() == expected
        np.testing.assert_array_equal(log_q, table.log_q[expected].astype(np.float32))


@pytest.mark.parametrize("ordered", [False, True])
def test_draws_follow_the_probabilities(ordered: bool) -> None:
    counts = np.array([30, 30, 12, 12, 12, 12, 5, 4, 4, 3, 0, 0, 1, 1, 1, 1, 1, 1.0])
    counts = np.sort(counts)[::-1] if ordered else np.random.default_rng(5).permutation(counts)
    table = _table(counts, seed=2)
    q = naive.popularity(counts.tolist()).q()
    drawn = table.draw(100_000)
    assert_follows(drawn, q)
    assert chi_square(drawn, naive.popularity(counts.tolist(), exponent=0.8).q()) < LEVEL


def test_memory_names_what_is_held() -> None:
    table = _table(WORLDS["shuffled zipf"])
    held = table.memory()
    assert held == {name: array.nbytes for name, array in table.arrays().items()}
    assert set(held) == {"cells", "class_masses", "values", "spans", "order"}
    table.running_sums(1 << 20)
    assert table.masses.nbytes == table.log_q.nbytes == 900 * 8
    assert table.class_of.nbytes == 900 * 2
    assert table.memory() == {
        **held, "masses": 7200, "log_q": 7200, "class_of": 1800, "starts": 7200
    }  # fmt: skip


# ------------------------------------------------------------------ pickles and files


@pytest.mark.parametrize("name", ["ordered", "scattered"])
def test_a_pickled_table_draws_on(name: str) -> None:
    table = _table(WORLDS[name], seed=3)
    table.draw(5, log_q=True)
    copied = pickle.loads(pickle.dumps(table))  # noqa: S301
    assert copied.fingerprint() == table.fingerprint()
    assert copied.error == table.error
    for _ in range(2):
        for ours, theirs in zip(table.draw(70, log_q=True), copied.draw(70, log_q=True)):  # noqa: B905
            assert torch.equal(ours, theirs)
    np.testing.assert_array_equal(copied.masses, table.masses)


@pytest.mark.parametrize("name", ["one item", "ordered", "scattered", "shuffled zipf"])
def test_a_saved_table_is_the_same_when_opened(name: str, tmp_path: Path) -> None:
    table = _table(WORLDS[name], seed=5, name="saved")
    table.save(tmp_path / "table")
    table.save(tmp_path / "table")  # a table of the kind is replaced
    opened = CountClassTable.open(tmp_path / "table", seed=5, name="saved")
    assert isinstance(opened.cells.base, np.memmap)
    assert (opened.num_items, opened.total) == (table.num_items, table.total)
    assert opened.error == table.error
    assert opened.num_reachable == table.num_reachable
    assert opened.fingerprint() == table.fingerprint()
    for log_q in (False, True):
        ours, theirs = table.draw(300, row=4, log_q=log_q), opened.draw(300, row=4, log_q=log_q)
        for a, b in zip(ours, theirs, strict=True) if log_q else [(ours, theirs)]:
            assert torch.equal(a, b)
    np.testing.assert_array_equal(opened.masses, table.masses)
    np.testing.assert_array_equal(opened.class_of, table.class_of)
    other = CountClassTable.open(tmp_path / "table", seed=6, name="saved")
    assert name == "one item" or not torch.equal(other.draw(300, row=4), ours[0])


def test_a_pickled_opened_table_is_opened_again(tmp_path: Path) -> None:
    table = _table(WORLDS["shuffled zipf"])
    table.save(tmp_path / "table")
    opened = CountClassTable.open(tmp_path / "table", seed=8, name="again")
    first = opened.draw(20)
    pickled = pickle.dumps(opened)
    assert len(pickled) < 2000  # a path, and not the table
    copied = pickle.loads(pickled)  # noqa: S301
    assert isinstance(copied.cells.base, np.memmap)
    assert not torch.equal(copied.draw(20, row=1), first)
    assert torch.equal(copied.draw(20), opened.draw(20))


@pytest.mark.parametrize("size", [7, 1000])
def test_untouched_items_alone_have_exact_masses_too(size: int) -> None:
    sampler = PopularitySampler(np.zeros(size), smoothing=1.0, method="classes")
    table = sampler.table
    assert sum(table.masses.tolist()) == table.total
    exclude = [[i for i in range(size) if i not in (2, 5)]] * 50  # finished by inversion
    drawn = sampler.sample(np.full(50, -1), 40, exclude=exclude).items
    assert set(drawn.ravel().tolist()) == {2, 5}


def test_a_table_whose_masses_cannot_sum_up_is_refused() -> None:
    classes = find_classes(np.array([5.0, 5, 3, 3, 3, 1] * 3), always=True)
    assert classes is not None
    assert classes.sizes.tolist() == [6, 9, 1, 2]
    weights = np.array([2.0, 1.0, 0.0, 0.0])
    with pytest.raises(FastnegError, match="no class of one item has a weight"):
        CountClassTable(classes, weights)


def test_unpickled_tables_stay_read_only() -> None:
    sampler = PopularitySampler(np.arange(1, 200) % 7 + 1, method="classes")
    again = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    for array in (*again.table.classes[:4], again.table.cells, again._classes.spans):
        assert not array.flags.writeable
