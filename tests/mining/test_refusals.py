"""Every input that must be refused, each with its one clear line."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.mining.miner import mine_hard_negatives

GOOD = {
    "queries": np.ones((4, 3), np.float32),
    "items": np.ones((50, 3), np.float32),
    "window": (1, 20),
    "num_negatives": 2,
}
NAN = np.ones((4, 3), np.float32)
NAN[2, 1] = np.nan
INF = np.ones((50, 3), np.float32)
INF[49, 0] = np.inf
SEEN = SimpleNamespace(
    positive_indptr=np.array([0, 1, 2]), positive_items=np.array([0, 1]), num_users=2, num_items=50
)

REFUSED = [
    ({"queries": NAN}, r"queries\[2, 1\] = nan is not a finite"),
    ({"items": INF}, r"items\[49, 0\] = inf is not a finite"),
    ({"items": np.ones((50, 4))}, r"items .* has width 4; 3 expected"),
    ({"queries": np.ones(3)}, r"queries .* has 1 dimensions; 2 expected"),
    ({"queries": np.ones((0, 3))}, r"queries is empty"),
    ({"items": np.ones((0, 3))}, r"items is empty"),
    ({"items": np.full((50, 3), 1e25), "queries": np.full((4, 3), 1e25)}, "too large for float32"),
    ({"window": (0, 5)}, r"window\[0\] = 0 is too small"),
    ({"window": (5, 4)}, r"window = \(5, 4\) ends before it starts"),
    ({"window": 5}, r"window = 5 is not a pair"),
    ({"window": (1, 2.5)}, r"window\[1\] = 2.5 is not an integer"),
    ({"num_negatives": 0}, "num_negatives = 0 is too small"),
    ({"num_negatives": 21}, r"num_negatives = 21 is more than the 20 ranks of window \(1, 20\)"),
    ({"metric": "l2"}, "metric = 'l2' is not one of 'ip', 'cosine'"),
    ({"strategy": "best"}, "strategy = 'best' is not one of"),
    ({"temperature": 0.0}, "temperature = 0.0 is not above 0"),
    ({"min_score": 2, "max_score": 1}, "min_score = 2.0 is above max_score = 1.0"),
    ({"min_score": float("nan")}, "min_score = nan is not finite"),
    ({"absolute_margin": -1, "positives": ([0] * 5, [])}, "absolute_margin = -1.0 is too small"),
    ({"relative_margin": 0.1}, "positives is None"),
    ({"max_per_item": 0}, "max_per_item = 0 is too small"),
    ({"query_groups": [0] * 4}, "query_groups is given without item_groups"),
    ({"item_groups": [0] * 50}, "item_groups is given without query_groups"),
    ({"query_groups": [0] * 3, "item_groups": [0] * 50}, "query_groups has 3 entries; 4 expected"),
    ({"query_groups": [0] * 4, "item_groups": [0] * 49 + [-2]}, r"item_groups\[49\] = -2"),
    ({"group_rule": "mine"}, "group_rule = 'mine' is not one of 'same', 'other'"),
    ({"search": "annoy"}, "search = 'annoy' is not one of"),
    ({"search": "faiss:"}, "search = 'faiss:' is not one of"),
    ({"search": "faiss:banana"}, "FAISS cannot make this index .*could not parse index string"),
    ({"search": "faiss:PQ2"}, "multiple of the number of subquantizers"),
    ({"search": "faiss:IVF64,Flat"}, "trains 64 lists and there are only 50 items"),
    ({"search": "faiss:PQ3"}, "FAISS cannot build this index over 50 items"),
    ({"recall": 0}, "recall = 0.0 asks for nothing"),
    ({"recall": 1.1}, "recall = 1.1 is too large"),
    ({"memory": 1000}, r"memory = 1000 bytes is too little for one query; give \d+ or more"),
    ({"device": "banana"}, "device = 'banana' cannot be used"),
    ({"seed": 1.5}, "seed = 1.5 is not an integer"),
    ({"positives": [1, 2, 3]}, r"positives is a list; give \(indptr, items\)"),
    ({"positives": ([0, 1], [50])}, r"positives.indices\[0\] = 50 is not a code in 0..49"),
    ({"positives": ([0, 1], [5])}, "positives has 1 rows and there are 4 queries"),
    ({"positives": ([0, 2, 1, 2, 2], [5, 6])}, "positives.indptr .* does not ascend"),
    ({"query_users": [0] * 4}, "positives is not an Interactions"),
    ({"positives": SEEN, "query_users": [0, 1, 2, 0]}, r"query_users\[2\] = 2 is not a code in -1"),
    ({"positives": SEEN, "query_users": [0]}, "query_users has 1 codes and there are 4 queries"),
    ({"positives": SEEN}, "there are 4 queries and 2 users; give query_users"),
    ({"positives": SEEN, "items": np.ones((9, 3))}, "positives has 50 items and items has 9"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_one_clear_error(change, message):
    with pytest.raises(FastnegError, match=message) as caught:
        mine_hard_negatives(**(GOOD | change), progress=False)
    assert str(caught.value).startswith("mine_hard_negatives: ")
    assert "\n" not in str(caught.value)
