"""Positives and vectors in every form that is taken."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch

from fastneg.interactions import Interactions
from fastneg.mining.miner import mine_hard_negatives
from tests.mining.helpers import csr, integers, positives_for


def test_unsorted_and_repeated_positives_count_once():
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 2, 3), integers(rng, 40, 3)
    mixed = mine_hard_negatives(
        queries, items, positives=([0, 4, 6], [9, 3, 9, 1, 7, 7]), window=(1, 39), progress=False
    )
    clean = mine_hard_negatives(
        queries, items, positives=([0, 3, 4], [1, 3, 9, 7]), window=(1, 39), progress=False
    )
    np.testing.assert_array_equal(mixed.items, clean.items)
    assert mixed.report.positives_removed == 4


def test_interactions_and_scipy_matrices_give_what_the_csr_gives():
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 6, 3), integers(rng, 40, 3)
    sets = positives_for(rng, 5, 40, 9)
    users = np.array([3, -1, 0, 3, 4, 1])
    rows = [sets[u] if u >= 0 else set() for u in users]
    seen = Interactions.from_codes(
        [u for u in range(5) for _ in sets[u]],
        [i for s in sets for i in s],
        num_users=5,
        num_items=40,
    )
    options = {"window": (1, 30), "progress": False}
    want = mine_hard_negatives(queries, items, positives=csr(rows), **options)
    got = mine_hard_negatives(queries, items, positives=seen, query_users=users, **options)
    np.testing.assert_array_equal(got.items, want.items)
    assert got.report.queries_without_positives == want.report.queries_without_positives
    by_user = mine_hard_negatives(queries[:5], items, positives=seen, **options)
    plain = mine_hard_negatives(queries[:5], items, positives=csr(sets), **options)
    np.testing.assert_array_equal(by_user.items, plain.items)
    indptr, codes = csr(rows)
    matrix = scipy.sparse.csr_matrix((np.ones(codes.size), codes, indptr), shape=(6, 40))
    sparse = mine_hard_negatives(queries, items, positives=matrix, **options)
    np.testing.assert_array_equal(sparse.items, want.items)


def test_read_only_arrays_other_dtypes_and_tensors_are_taken():
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 6, 3), integers(rng, 90, 3)
    want = mine_hard_negatives(queries, items, window=(1, 30), progress=False).items
    frozen = items.copy()
    frozen.setflags(write=False)
    for q, x in (
        (torch.tensor(queries, requires_grad=True), torch.tensor(items)),
        (queries.astype(np.float64), items.astype(np.int16)),
        (np.asfortranarray(queries), frozen),
    ):
        np.testing.assert_array_equal(
            mine_hard_negatives(q, x, window=(1, 30), progress=False).items, want
        )
