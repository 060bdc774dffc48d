"""What lists exclude: tables of allowed items and filters decide speed, and never an id."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastneg.interactions import Interactions
from fastneg.samplers import exclusion
from fastneg.samplers.base import Sampler
from fastneg.samplers.complement import build_complements, list_masses, no_complements
from fastneg.samplers.count_classes import CountClassTable
from fastneg.samplers.exclusion import Exclusion, build_filters, filters_of, no_filters
from fastneg.samplers.item_table import ItemTable
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive

N, CROWD = 300, 400
WIDTHS = [1, 5, 40, 100]
HUGE = 1 << 28


@functools.cache
def known() -> dict[int, list[int]]:
    """Ten users who know from nothing to nearly everything, and a crowd that makes counts fall."""
    rng = np.random.default_rng(6)
    lists = {
        1: [4],
        2: [0, 1, 2, 3, 5, 8, 13],
        3: [i for i in range(N) if i % 2],
        4: [i for i in range(N) if i % 9],
        5: list(range(220)),  # nearly all that is popular
        6: [i for i in range(N) if i != 250],
        7: [i for i in range(N) if i not in (3, 77, 299)],
        8: list(range(150, 300)),
        9: [i for i in range(N) if i % 25 != 2],
    }
    chance = 60 / np.arange(20, N + 20) ** 1.3
    for user in range(10, CROWD):
        lists[user] = np.flatnonzero(rng.random(N) < chance).tolist()
    return lists


@functools.cache
def interactions() -> Interactions:
    return fresh()


def fresh() -> Interactions:
    """The same pairs again: nothing is remembered of them yet."""
    pairs = [(user, item) for user, items in known().items() for item in items]
    users, items = np.array(pairs).T
    return Interactions.from_codes(users, items, num_users=CROWD, num_items=N)


USERS = np.array([-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 399, 6, 9, 7])
MAKE: dict[str, Callable[..., Sampler]] = {
    "uniform": UniformSampler,
    "popularity": PopularitySampler,
    "unigram": lambda source, **more: PopularitySampler(source, exponent=1.0, **more),
    "classes": lambda source, **more: PopularitySampler(source, method="classes", **more),
}


def _excluded(user: int, extra: Any = ()) -> list[int]:
    return sorted({*known().get(user, ()), *extra})


def _twin(sampler: Sampler, user: int, extra: Any, row: int, width: int) -> list[int]:
    """The ids that the row should have, in Python integers."""
    key, excluded = int(sampler._key("")), _excluded(user, extra)
    if isinstance(sampler, UniformSampler):
        return [naive.uniform_draw(N, excluded, key, row, d) for d in range(width)]
    assert isinstance(sampler, PopularitySampler)
    table = sampler.table
    cells, masses = table.cells.tolist(), table.masses.tolist()
    left = 1.0 - sum(masses[item] for item in excluded) / sum(masses)
    attempts = 0 if left <= 0.25 else 16
    if not isinstance(table, CountClassTable):
        return [
            naive.table_draw(cells, masses, excluded, key, row, d, attempts=attempts)
            for d in range(width)
        ]
    spans = list(zip(table.starts.tolist(), table.classes.sizes.tolist(), strict=True))
    allowed = {i: masses[i] for i in range(N) if i not in excluded}

    def draw(d: int) -> int:
        for attempt in range(attempts):
            place = naive.place_of(key, row, d, attempt)
            item = naive.class_draw(
                cells, spans, table.classes.order, place, int(table.salt_of(key))
            )
            if item not in excluded:
                return item
        return naive.mass_draw(allowed, naive.word(key, row, d, attempts))

    return [draw(d) for d in range(width)]


# ------------------------------------------------------------------ masses of lists


def test_what_a_list_leaves() -> None:
    sampler = PopularitySampler(interactions())
    masses = sampler.table.masses.tolist()
    total = sum(masses)
    lists = sampler._lists
    assert len(lists.mass) == CROWD + 1
    for user in [*range(12), CROWD]:  # the last one: nobody's list
        excluded = _excluded(user)
        gone = sum(masses[item] for item in excluded)
        assert int(lists.mass[user]) == gone
        assert lists.allowed[user] == sum(masses[i] > 0 for i in range(N) if i not in excluded)
        assert lists.log_allowed[user] == pytest.approx(np.log((total - gone) / total), abs=1e-14)
        assert lists.attempts[user] == (0 if total - gone <= 0.25 * total else 16)
    assert set(np.flatnonzero(lists.attempts[:10] == 0)) >= {4, 5, 6, 7, 9}
    assert not lists.nobody
    everything = Exclusion(np.array([0, N]), np.arange(N), np.zeros(1, dtype=np.int64))
    left = list_masses(everything, sampler.table)
    assert left.nobody
    assert (left.allowed.tolist(), left.log_allowed.tolist()) == ([0, N], [-np.inf, 0.0])


# ------------------------------------------------------------------ complements


def _hopeless(sampler: PopularitySampler) -> list[int]:
    attempts, allowed = sampler._lists.attempts[:-1], sampler._lists.allowed[:-1]
    users = [u for u in range(CROWD) if attempts[u] == 0 and allowed[u] > 0]
    return sorted(users, key=lambda user: (allowed[user], user))


def _size(sampler: PopularitySampler, users: list[int]) -> int:
    return sum(12 * int(sampler._lists.allowed[user]) + 8 for user in users)


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_smallest_tables_are_made_within_the_budget(count: int, off: int) -> None:
    sampler = PopularitySampler(interactions())
    hopeless = _hopeless(sampler)
    assert hopeless[:2] == [6, 7]
    assert len(hopeless) >= 5
    budget = max(0, _size(sampler, hopeless[:count]) + off)
    fitting = sum(_size(sampler, hopeless[:k]) <= budget for k in range(1, len(hopeless) + 1))
    assert fitting == max(0, count - 1 if off < 0 else count)
    chosen = hopeless[:fitting]
    table: ItemTable = sampler.table
    made = build_complements(sampler._known, sampler._lists, table, budget)
    assert made.left_out == len(hopeless) - len(chosen)
    assert [made.table_of[user] for user in chosen] == list(range(len(chosen)))
    assert (np.delete(made.table_of, chosen) == -1).all()
    assert len(made.table_of) == CROWD + 1
    assert made.nbytes == (_size(sampler, chosen) + 8 if chosen else 8)
    for k, user in enumerate(chosen):
        part = slice(made.bounds[k], made.bounds[k + 1])
        allowed = [i for i in range(N) if table.masses[i] and i not in known()[user]]
        assert made.items[part].tolist() == allowed
        np.testing.assert_array_equal(made.sums[part], np.cumsum(table.masses[allowed]))
    assert not any(array.flags.writeable for array in made[:4])


def test_without_interactions_there_are_no_complements() -> None:
    sampler = PopularitySampler(np.arange(1.0, 40.0))
    assert sampler._complements.table_of.tolist() == [-1]
    assert sampler._complements.left_out == 0
    nothing = no_complements(3)
    assert nothing.table_of.tolist() == [-1] * 4
    assert len(nothing.items) == len(nothing.sums) == 0


@pytest.mark.parametrize("name", ["popularity", "unigram", "classes"])
@pytest.mark.parametrize("width", WIDTHS)
def test_ids_do_not_depend_on_the_budget(name: str, width: int) -> None:
    rich = MAKE[name](interactions(), seed=4)
    assert isinstance(rich, PopularitySampler)
    expected = rich.sample(USERS, width, rows=np.arange(50, 50 + len(USERS)))
    twins = [_twin(rich, int(u), (), 50 + b, width) for b, u in enumerate(USERS)]
    assert expected.items.tolist() == twins
    hopeless = _hopeless(rich)
    assert rich._complements.left_out == 0
    budgets = [0, _size(rich, hopeless[:1]), _size(rich, hopeless[:3]), _size(rich, hopeless[:5])]
    for budget, made in zip(budgets, (0, 1, 3, 5), strict=True):
        poor = MAKE[name](fresh(), seed=4, memory_budget=budget)
        assert isinstance(poor, PopularitySampler)
        assert poor._complements.left_out == len(hopeless) - made
        got = poor.sample(USERS, width, rows=np.arange(50, 50 + len(USERS)))
        assert torch.equal(got.items, expected.items)
        assert torch.equal(got.log_q, expected.log_q)


# ------------------------------------------------------------------ filters

EXTRA: dict[str, Any] = {
    "none": None,
    "lists": [[], [5], [0, 1, 2], [], list(range(0, N, 2))[:140], [], [200, 200], [], [3],
              [7], [], list(range(30)), [299], [], [2], [77]],
    "nearly everything": [
        [i for i in range(N) if i not in (40, 250, 299, 27, 77)] if b % 3 == 0 else []
        for b in range(len(USERS))
    ],
}  # fmt: skip


def _sample(name: str, width: int, extra: Any) -> tuple[Sampler, Any]:
    sampler = MAKE[name](fresh(), seed=9)
    return sampler, sampler.sample(USERS, width, exclude=extra, rows=np.arange(len(USERS)))


@pytest.mark.parametrize("which", EXTRA)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MAKE)
def test_filters_change_no_id(
    name: str, width: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = EXTRA[which]
    sampler, filtered = _sample(name, width, extra)
    for b, user in enumerate(USERS):
        row = [] if extra is None else extra[b]
        assert filtered.items[b].tolist() == _twin(sampler, int(user), row, b, width)
    made = []

    def none(indptr: Any, items: Any, memory_budget: int) -> Any:
        made.append(len(indptr) - 1)
        return no_filters(len(indptr) - 1)

    monkeypatch.setattr(exclusion, "build_filters", none)
    monkeypatch.setattr(exclusion, "filters_of", lambda source, _: no_filters(source.num_users))
    _, plain = _sample(name, width, extra)
    assert torch.equal(plain.items, filtered.items)
    assert torch.equal(plain.log_q, filtered.log_q)
    # lists of one request get filters where it draws more ids than they hold
    lists = (
        0 if extra is None else sum(len(_excluded(int(u), extra[b])) for b, u in enumerate(USERS))
    )
    assert made == ([len(USERS)] if extra is not None and lists < len(USERS) * width else [])


def test_one_filter_for_all_samplers_over_the_same_interactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def count(*arguments: Any) -> Any:
        made.append(1)
        return build_filters(*arguments)

    monkeypatch.setattr(exclusion, "build_filters", count)
    first, second = fresh(), fresh()
    filters = filters_of(first, HUGE)
    assert filters_of(first, HUGE) is filters
    for make in MAKE.values():
        make(first).sample(USERS, 4)
    assert len(made) == 1
    assert filters_of(second, HUGE) is not filters
    assert len(made) == 2
    small = filters_of(first, 8 * len(filters.words) - 1)  # it would not fit
    assert small.words.tolist() == [2**64 - 1, 0]
    assert small.metas.tolist() == no_filters(CROWD).metas.tolist()
    assert filters_of(first, 8 * len(filters.words)) is filters


def test_a_request_gets_filters_only_where_they_pay() -> None:
    attempts = np.array([16, 0, 16, 16], dtype=np.int8)
    lists = Exclusion(np.array([0, 3, 5, 5]), np.array([1, 4, 9, 0, 2]), np.array([0, 1, 2, -1]))
    nothing = no_filters(3)
    few = lists.filters(5, attempts, HUGE)  # as many draws as ids
    assert few.metas.tolist() == nothing.metas.tolist()
    many = lists.filters(6, attempts, HUGE)
    assert len(many.words) > 2
    assert many.metas[1] == exclusion.EVERYTHING  # hopeless: every draw is looked at
    assert many.metas[2] == many.metas[3] == (1 << 8) | exclusion.EVERYTHING  # nothing listed
    poor = lists.filters(6, attempts, 8)
    assert poor.words.tolist() == nothing.words.tolist()
    nobody = Exclusion(np.zeros(1, np.int64), np.zeros(0, np.int64), np.full(2, -1))
    assert nobody.filters(10**6, np.array([16], dtype=np.int8), HUGE).metas.tolist() == [
        (1 << 8) | exclusion.EVERYTHING
    ]


# ------------------------------------------------------------------ lists of nothing


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("extra", [[[], []], (np.array([0, 0, 0]), np.zeros(0, np.int64)),
                                   np.full((2, 3), -1), np.zeros((2, 0), dtype=np.int64)],
                         ids=["lists", "ragged", "padding", "no columns"])  # fmt: skip
def test_empty_lists_exclude_nothing(name: str, width: int, extra: Any) -> None:
    for users in ([-1, -1], [0, 6], [4, -1], [0, 0]):
        sampler = MAKE[name](interactions(), seed=3)
        rows = np.array([7, 2**40])
        got = sampler.sample(users, width, exclude=extra, rows=rows)
        plain = sampler.sample(users, width, rows=rows)
        assert torch.equal(got.items, plain.items)
        assert torch.equal(got.log_q, plain.log_q)
        for b, user in enumerate(users):
            assert got.items[b].tolist() == _twin(sampler, user, (), int(rows[b]), width)
    counts = interactions().item_user_counts
    alone = MAKE[name](N if name == "uniform" else counts, seed=3)
    got = alone.sample([0, 12345], width, exclude=extra, rows=rows)  # any user is unknown
    for b in range(2):
        assert got.items[b].tolist() == _twin(alone, -1, (), int(rows[b]), width)


@pytest.mark.parametrize("name", MAKE)
def test_no_rows_and_empty_lists(name: str) -> None:
    sampler = MAKE[name](interactions())
    drawn = sampler.sample(np.zeros(0, np.int64), 4, exclude=[])
    assert drawn.items.shape == drawn.log_q.shape == (0, 4)
    positives = np.zeros(0, np.int64)
    assert sampler.sample(positives, 4, exclude=[], positives=positives).items.shape == (0, 4)


@pytest.mark.parametrize("name", MAKE)
def test_lists_that_are_empty_but_for_one(name: str) -> None:
    sampler = MAKE[name](interactions(), seed=5)
    users, extra = [0, -1, 2, 0], [[], [], [0, 9], []]
    got = sampler.sample(users, 40, exclude=extra, rows=np.arange(4))
    for b, user in enumerate(users):
        assert got.items[b].tolist() == _twin(sampler, user, extra[b], b, 40)
