"""Errors begin with the call that the user made, in every public function of mining."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from tests.mining.helpers import integers

VECTORS = integers(np.random.default_rng(0), 40, 4)
PAIRS = (np.arange(41), np.arange(40))


def mine(**options):
    options = {"queries": VECTORS, "items": VECTORS, "window": (1, 5), "num_negatives": 2} | options
    return mine_hard_negatives(options.pop("queries"), options.pop("items"), **options)


def to_folder(folder, **options):
    options = {"queries": VECTORS, "items": VECTORS, "window": (1, 5), "num_negatives": 2} | options
    return mine_to_folder(options.pop("queries"), options.pop("items"), folder / "job", **options)


def diagnose(**options):
    options = {"queries": VECTORS, "items": VECTORS, "window": (1, 5), "held_out": PAIRS} | options
    vectors = (options.pop("queries"), options.pop("items"))
    return diagnose_window(*vectors, options.pop("positives", None), **options)


SHARED = [
    {"device": "cuda:99"}, {"device": "meta"}, {"device": "nonsense"}, {"device": 3},
    {"memory": 10}, {"memory": "x"}, {"metric": "x"}, {"window": (5, 1)}, {"window": 3},
    {"seed": "x"}, {"positives": (np.arange(41)[::-1], np.arange(40))}, {"positives": "x"},
    {"positives": (np.arange(41), np.r_[-1, np.arange(39)])},
    {"positives": (np.arange(41), np.r_[2**62, np.arange(39)])},
    {"positives": (np.r_[0, 3, 2, np.arange(3, 41)], np.arange(40))},
    {"positives": (np.arange(3), np.arange(2))}, {"query_users": [1]},
    {"queries": VECTORS[:0]}, {"items": VECTORS[:, :3]}, {"items": VECTORS[0]}, {"items": "x.npy"},
    {"items": np.full((5, 4), np.nan)}, {"items": VECTORS * 1e30, "queries": VECTORS * 1e30},
]  # fmt: skip
OF_MINING = [
    {"search": "nonsense"}, {"search": "faiss:Nonsense"}, {"search": "faiss:IVF0,Flat"},
    {"search": "faiss:IVF999,Flat"}, {"search": "ivf", "memory": 1_000}, {"recall": 2},
    {"strategy": "x"}, {"num_negatives": 9}, {"min_score": 2, "max_score": 1}, {"temperature": 0},
    {"query_groups": [1] * 40}, {"absolute_margin": 0.1}, {"drop_duplicates": 1},
    {"max_per_item": 0}, {"query_groups": [1] * 40, "item_groups": [-2] * 40},
]  # fmt: skip
OF_DIAGNOSIS = [
    {"buckets": [3, 2]}, {"item_counts": [1]}, {"other": 3}, {"other": (VECTORS, VECTORS[:3])},
    {"depth": 1}, {"max_risk": 0}, {"num_queries": 0}, {"held_out": "x"},
    {"held_out": (np.arange(41)[::-1], np.arange(40))}, {"window": (2**62, 2**63)},
]  # fmt: skip


def refused(call, name, options):
    if options.get("memory") == 10:
        options = options | ({} if name == "diagnose_window" else {"search": "exact"})
    with pytest.raises(FastnegError) as caught:
        call(**options)
    assert str(caught.value).startswith(f"{name}: "), caught.value
    assert "\n" not in str(caught.value)
    for other in {"mine_hard_negatives", "mine_to_folder", "diagnose_window"} - {name}:
        assert other not in str(caught.value).removeprefix(name) or "mine_to_folder and" in str(
            caught.value
        )


@pytest.mark.parametrize("options", [*SHARED, *OF_MINING], ids=str)
def test_mining_in_memory_and_into_a_folder(options, tmp_path):
    refused(mine, "mine_hard_negatives", options)
    refused(lambda **more: to_folder(tmp_path, **more), "mine_to_folder", options)


@pytest.mark.parametrize("options", [*SHARED, *OF_DIAGNOSIS], ids=str)
def test_a_diagnosis(options):
    refused(diagnose, "diagnose_window", options)
