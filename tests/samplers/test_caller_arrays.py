"""Nothing that was built follows what its caller writes into the arrays later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fastneg.interactions import Interactions
from fastneg.mining.miner import mine_hard_negatives
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.frequency import FrequencyEstimator
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler

N = 4
Arrays = dict[str, np.ndarray]


def _weights() -> Arrays:
    return {"weights": np.array([3.0, 2.0, 1.0, 0.5])}


def _rows() -> Arrays:
    return {
        "users": np.array([0, 0, 1, 2]),
        "items": np.array([0, 1, 2, 3]),
        "weights": np.array([1, 2, 1, 3], np.float32),
        "times": np.array([5, 6, 7, 8]),
    }


def _known(arrays: Arrays, **more: Any) -> Interactions:
    columns = {name: arrays[name] for name in ("weights", "times")}
    return Interactions.from_codes(arrays["users"], arrays["items"], **columns, **more)


def _csr(kind: str) -> Callable[[Arrays], Interactions]:
    def make(arrays: Arrays) -> Interactions:
        matrix = sp.csr_matrix((3, 4))
        matrix.indptr, matrix.indices, matrix.data = (
            arrays["indptr"], arrays["indices"], arrays["data"],
        )  # fmt: skip
        return Interactions.from_csr(matrix if kind == "csr" else matrix.asformat(kind, copy=False))

    return make


def _matrix() -> Arrays:
    return {
        "indptr": np.array([0, 2, 3, 4]),
        "indices": np.array([0, 1, 2, 3]),
        "data": np.array([1, 2, 1, 3], np.float32),
    }


def _lists() -> Arrays:
    return {"indptr": np.array([0, 2, 3, 4]), "items": np.array([1, 2, 3, 0]),
            "weights": np.array([1.0, 2.0, 3.0, 4.0])}  # fmt: skip


MAKES: dict[str, tuple[Callable[[], Arrays], Callable[[Arrays], Any]]] = {
    **{
        f"popularity by {method}": (
            _weights,
            lambda a, method=method: PopularitySampler(a["weights"], method=method),
        )
        for method in ("auto", "table", "classes")
    },
    "popularity of a tensor": (
        _weights, lambda a: PopularitySampler(torch.from_numpy(a["weights"]), exponent=1.0)
    ),
    "alias table": (_weights, lambda a: AliasTable(a["weights"])),
    "frequency": (_weights, lambda a: FrequencyEstimator(64, prior=a["weights"])),
    "streaming": (
        lambda: {"counts": np.array([3, 2, 1, 0])},
        lambda a: StreamingPopularitySampler(N, counts=a["counts"]),
    ),
    "available": (
        lambda: {**_weights(), "first": np.arange(4), "last": np.arange(4, 8)},
        lambda a: AvailableSampler(a["weights"], a["first"], a["last"], exponent=1.0),
    ),
    "available by floats": (
        lambda: {**_weights(), "first": np.arange(4.0), "last": np.arange(4.0, 8)},
        lambda a: AvailableSampler(a["weights"], a["first"], a["last"], exponent=1.0),
    ),
    "grouped": (
        lambda: {**_weights(), "fine": np.array([0, 0, 1, 1]), "coarse": np.zeros(4, np.int32)},
        lambda a: GroupedSampler(a["weights"], [a["fine"], a["coarse"]], exponent=1.0),
    ),
    "lists": (
        _lists,
        lambda a: ListedSampler((a["indptr"], a["items"]), weights=a["weights"], num_items=N),
    ),
    "a matrix of lists": (
        lambda: {"items": np.array([[1, 2], [3, 0]])},
        lambda a: ListedSampler(a["items"], num_items=N),
    ),
    "codes": (_rows, _known),
    "codes of known sizes": (_rows, lambda a: _known(a, num_users=9, num_items=7)),
    "ids": (_rows, lambda a: Interactions.from_pairs(**a)),
    "sparse ids and tables of them": (
        lambda: {"ids": np.array([9**15, 5, 7, -3]), "table": np.array([7, 8**17, 5, -3, 9**15])},
        lambda a: Interactions.from_pairs(a["ids"], a["ids"], user_ids=a["table"]),
    ),
    "tables of ids alone": (
        lambda: {"ids": np.array([10**15, 5, 7, -3])},
        lambda a: Interactions.from_pairs([], [], user_ids=a["ids"], item_ids=a["ids"]),
    ),
    "a mapping of columns": (
        lambda: {key: value for key, value in _rows().items() if key != "weights"},
        lambda a: Interactions.from_table(
            a, user_column="users", item_column="items", time_column="times"
        ),
    ),
    "appended": (
        _rows,
        lambda a: _known(_rows()).append(
            a["users"], a["items"], weights=a["weights"], times=a["times"]
        ),
    ),
    "selected": (lambda: {"rows": np.array([0, 2])}, lambda a: _known(_rows()).select(a["rows"])),
    **{kind: (_matrix, _csr(kind)) for kind in ("csr", "csc", "coo")},
    "uniform": (_rows, lambda a: UniformSampler(_known(a))),
    "log-uniform": (_rows, lambda a: LogUniformSampler(_known(a))),
}  # fmt: skip


def _arrays(value: Any, seen: set[int]) -> Iterator[np.ndarray]:
    """Every array that an object of ours leads to."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _arrays(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _arrays(part, seen)
    elif type(value).__module__.startswith("fastneg"):
        yield from _arrays(getattr(value, "__dict__", {}), seen)
        for name in getattr(type(value), "__slots__", ()):
            yield from _arrays(getattr(value, name, None), seen)
    elif hasattr(value, "buffers"):  # Arrow's ids
        for buffer in value.buffers():
            if buffer is not None:
                yield np.frombuffer(buffer, np.uint8)


@pytest.mark.parametrize("name", MAKES)
def test_nothing_keeps_a_view_of_the_callers_arrays(name: str) -> None:
    arrays, make = MAKES[name]
    given = arrays()
    built = make(given)
    kept = list(_arrays(built, set()))
    assert kept
    for theirs in given.values():
        assert theirs.flags.writeable
        assert not any(np.may_share_memory(theirs, ours) for ours in kept)


def test_what_was_mined_is_its_own() -> None:
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(2, 5, 4)).astype(np.float32)
    mined = mine_hard_negatives(queries, items, window=(1, 3), num_negatives=2, progress=False)
    sampler = ListedSampler(mined, num_items=5)
    for ours in _arrays(sampler, set()):
        assert not np.may_share_memory(ours, mined.items)
    for ours in mined[:3]:
        assert not any(np.may_share_memory(ours, theirs) for theirs in (queries, items))


@pytest.mark.parametrize("method", ["auto", "table", "classes"])
def test_another_exponent_is_of_the_counts_that_were_given(method: str) -> None:
    counts = np.array([8.0, 4.0, 2.0, 1.0])
    sampler = PopularitySampler(counts, method=method)
    counts[:] = [1.0, 1.0, 0.0, 100.0]
    got = sampler.with_exponent(1.0).log_q([0, 1, 2, 3]).exp().numpy()
    np.testing.assert_allclose(got, np.array([8, 4, 2, 1]) / 15, rtol=1e-6)
