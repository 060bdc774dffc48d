"""Rules inside the window, draws and their frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.mining.miner import mine_hard_negatives
from tests.mining.helpers import csr, expect, integers, positives_for
from tests.naive import mining as naive

RULES = [
    {"min_score": -4.0, "max_score": 6.0},
    {"absolute_margin": 2.0},
    {"relative_margin": 0.25},
    {"absolute_margin": 0.0, "relative_margin": 0.5, "min_score": -20.0},
    {"groups": True, "group_rule": "same"},
    {"groups": True, "group_rule": "other", "max_score": 3.0},
    {"max_per_item": 2},
    {"max_per_item": 1, "min_score": -4.0},
]


@pytest.mark.parametrize("rules", RULES, ids="+".join)
@pytest.mark.parametrize("strategy", ["uniform", "top", "softmax"])
def test_rules_act_inside_the_window_and_never_shift_it(rules, strategy):
    rng = np.random.default_rng(8)
    queries, items = integers(rng, 40, 6), integers(rng, 150, 6)
    sets = positives_for(rng, 40, 150, 4)
    rules = dict(rules)
    ours, twins = dict(rules), dict(rules)
    if rules.get("groups"):
        query_groups = rng.integers(-1, 4, 40)
        item_groups = rng.integers(-1, 4, 150)
        ours.pop("groups")
        ours |= {"query_groups": query_groups, "item_groups": item_groups}
        twins |= {"groups": query_groups, "item_groups": item_groups}
    mined = mine_hard_negatives(
        queries,
        items,
        positives=csr(sets),
        window=(5, 30),
        num_negatives=6,
        strategy=strategy,
        temperature=2.0,
        seed=1,
        progress=False,
        **ours,
    )
    want, ranks = expect(
        queries, items, sets, (5, 30), 6, seed=1, strategy=strategy, temperature=2.0, **twins
    )
    np.testing.assert_array_equal(mined.items, want)
    np.testing.assert_array_equal(mined.ranks, ranks)
    report = mined.report
    assert report.missing_negatives == (want < 0).sum()
    assert report.short_rows == (want < 0).any(axis=1).sum()
    assert report.empty_rows == (want < 0).all(axis=1).sum()
    assert report.full_rows == 40 - report.short_rows
    rejected = report.rejected_by_score + report.rejected_by_margin + report.rejected_by_group
    plain = expect(queries, items, sets, (5, 30), 26)[0]
    kept = sum(
        len(
            naive.eligible(
                naive.scores_of(queries[q], items),
                sets[q],
                (5, 30),
                group=twins["groups"][q] if "groups" in twins else -1,
                **{k: v for k, v in twins.items() if k not in ("groups", "max_per_item")},
            )
        )
        for q in range(40)
    )
    assert report.window_members == (plain >= 0).sum()
    assert rejected == report.window_members - kept
    realised = np.bincount(want[want >= 0], minlength=1)
    assert report.realised_max_per_item == realised.max()
    assert report.distinct_items == (realised > 0).sum()


def test_margins_keep_their_direction_where_positives_score_below_zero():
    items = np.array([[-1.0], [-2.0], [-2.9], [-3.1], [-4.0]], np.float32)
    mined = mine_hard_negatives(
        np.ones((2, 1), np.float32),
        items,
        positives=([0, 1, 1], [1]),
        window=(1, 5),
        num_negatives=5,
        relative_margin=0.5,
        strategy="top",
        progress=False,
    )
    assert mined.items[0].tolist() == [3, 4, -1, -1, -1]  # s <= -2 - 0.5 * 2
    assert mined.items[1].tolist() == [0, 1, 2, 3, 4]  # no positives, no margin
    assert mined.report.rejected_by_margin == 2


def test_a_row_depends_on_its_number_and_the_seed_only():
    rng = np.random.default_rng(4)
    queries, items = integers(rng, 50, 4), integers(rng, 400, 4)
    options = {"window": (11, 60), "num_negatives": 8, "progress": False}
    whole = mine_hard_negatives(queries, items, seed=1, **options)
    part = mine_hard_negatives(queries[:13], items, seed=1, **options)
    other = mine_hard_negatives(queries, items, seed=2, **options)
    np.testing.assert_array_equal(whole.items[:13], part.items)
    assert (whole.items != other.items).mean() > 0.5
    twins = mine_hard_negatives(np.repeat(queries[:1], 50, axis=0), items, seed=1, **options)
    assert len(np.unique(twins.items, axis=0)) > 40  # equal queries draw each their own


def test_the_first_draws_are_a_draw_of_fewer():
    rng = np.random.default_rng(4)
    queries, items = integers(rng, 30, 4), integers(rng, 300, 4)
    for strategy in ("uniform", "softmax"):
        few, many = (
            mine_hard_negatives(
                queries, items, window=(5, 80), num_negatives=n, strategy=strategy, progress=False
            ).items
            for n in (4, 20)
        )
        np.testing.assert_array_equal(many[:, :4], few)


def chi_square_p(observed, expected):
    from scipy.stats import chisquare

    return chisquare(observed, expected).pvalue


# ------------------------------------------------------------------ frequencies


@pytest.mark.parametrize("strategy", ["uniform", "softmax"])
def test_frequencies_of_draws_without_replacement(strategy):
    rng = np.random.default_rng(0)
    items = rng.standard_normal((12, 3)).astype(np.float32)
    query = rng.standard_normal(3).astype(np.float32)
    queries = np.repeat(query[None], 20_000, axis=0)
    mined = mine_hard_negatives(
        queries,
        items,
        window=(3, 8),
        num_negatives=2,
        strategy=strategy,
        temperature=0.7,
        seed=3,
        progress=False,
    )
    scores = naive.scores_of(query, items)
    members = naive.ranking(scores, set())[2:8]
    weights = {i: 1.0 if strategy == "uniform" else np.exp(float(scores[i]) / 0.7) for i in members}
    total = sum(weights.values())
    pairs = [(a, b) for a in members for b in members if a != b]
    chance = np.array([weights[a] / total * weights[b] / (total - weights[a]) for a, b in pairs])
    codes = mined.items[:, 0] * 100 + mined.items[:, 1]
    counts = np.array([(codes == a * 100 + b).sum() for a, b in pairs])
    assert counts.sum() == 20_000
    assert chi_square_p(counts, chance * 20_000) > 1e-6
    wrong = chance * np.linspace(0.85, 1.15, len(chance))
    assert chi_square_p(counts, wrong / wrong.sum() * 20_000) < 1e-6  # the test can fail


def test_the_cap_lowers_the_most_frequent_item_and_does_not_depend_on_order():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((600, 8)).astype(np.float32)
    items = rng.standard_normal((500, 8)).astype(np.float32)
    items[:20] *= 6.0  # hubs
    options = {"window": (1, 60), "num_negatives": 5, "progress": False}
    free = mine_hard_negatives(queries, items, **options).report
    capped = mine_hard_negatives(queries, items, max_per_item=10, **options).report
    assert free.realised_max_per_item > 30
    assert capped.realised_max_per_item < 0.75 * free.realised_max_per_item
    assert capped.max_per_item == 10
    assert capped.missing_negatives == 0
    # Pass one sees a permuted job as the same job: equal draws where row numbers are equal.
    low = mine_hard_negatives(queries, items, max_per_item=10, memory=2_000_000, **options)
    high = mine_hard_negatives(queries, items, max_per_item=10, **options)
    np.testing.assert_array_equal(low.items, high.items)  # windows kept, or searched again
