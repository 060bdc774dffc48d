"""Which epoch an iteration serves: each another one, the same for all workers of a loader."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastneg.errors import CheckpointError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training import position
from fastneg.training.batch import Draw
from fastneg.training.batches import NegativeBatches
from fastneg.training.position import Position

EXAMPLES, ITEMS = 40, 500
WAYS = [
    (way, persistent) for way in ("fork", "spawn", "forkserver") for persistent in (False, True)
]
Served = list[tuple[list[int], list[list[int]], list[int]]]


def _seen() -> Interactions:
    return Interactions.from_codes(
        np.arange(EXAMPLES) % 5, np.arange(EXAMPLES), num_items=ITEMS, weights=np.ones(EXAMPLES)
    )


def _make(sampler: Any = None, **changes: Any) -> NegativeBatches:
    seen = _seen()
    arguments: dict[str, Any] = {
        "batch_size": 10,
        "sampler": sampler or UniformSampler(seen, seed=1),
        "num_negatives": 2,
        "shared_sampler": UniformSampler(seen, seed=1, name="shared"),
        "num_shared": 3,
    }
    return NegativeBatches(seen, **{**arguments, **changes})


def _plain(batches: Any) -> Served:
    return [
        (batch.rows.tolist(), batch.negatives.items.tolist(), batch.shared.items.tolist())
        for batch in batches
    ]


def _epoch(epoch: int, **changes: Any) -> Served:
    batches = _make(**changes)
    batches.set_epoch(epoch)
    return _plain(batches)


def _loader(batches: NegativeBatches, way: str | None, persistent: bool = False) -> DataLoader[Any]:
    return DataLoader(
        batches, batch_size=None, num_workers=2 if way else 0, multiprocessing_context=way,
        persistent_workers=persistent,
    )  # fmt: skip


def test_every_iteration_serves_the_next_epoch() -> None:
    batches = _make()
    assert batches.epoch == 0
    for epoch in range(3):
        assert _plain(batches) == _epoch(epoch)
        assert batches.epoch == epoch
    batches.set_epoch(7)
    for epoch in (7, 8):
        assert batches.epoch == 7
        assert _plain(batches) == _epoch(epoch)
    batches.set_epoch(8)  # again, if that is what is said
    assert _plain(batches) == _epoch(8)


@pytest.mark.parametrize("left_after", [0, 1, 3, 4])
def test_an_iteration_that_is_left_early_counts(left_after: int) -> None:
    batches = _make()
    for epoch in range(7):
        served = []
        for batch in batches:
            served.append(batch.rows.tolist())
            if len(served) > left_after:
                break
        assert served == [rows for rows, _, _ in _epoch(epoch)][: left_after + 1]
        assert len(served) == min(4, left_after + 1)


@pytest.mark.parametrize(("way", "persistent"), WAYS)
def test_loader_workers_serve_the_epochs_of_one_process(way: str, persistent: bool) -> None:
    if way == "forkserver":  # import once, not once a worker
        multiprocessing.get_context(way).set_forkserver_preload([__name__])
    batches = _make()
    loader = _loader(batches, way, persistent)
    for epoch in range(2):
        torch.manual_seed(1)  # workers get the same seeds from torch then
        assert _plain(loader) == _epoch(epoch)
    if way != "fork":  # processes that start slowly
        return
    for _ in loader:
        break
    assert _plain(loader) == _epoch(3)
    batches.set_epoch(9)
    assert _plain(loader) == _epoch(9)
    assert _plain(loader) == _epoch(10)
    assert _plain(batches) == _epoch(11)  # nor does this process repeat what workers served
    batches.load_state_dict({**batches.state_dict(), "epoch": 2, "next_batch": 3})
    assert _plain(loader) == _epoch(2)[3:]
    assert _plain(loader) == _epoch(3)


def test_another_number_of_workers_goes_on() -> None:
    batches = _make()
    for epoch, workers in enumerate((2, 1, 3, 0, 2)):
        loader = DataLoader(batches, batch_size=None, num_workers=workers)
        assert _plain(loader) == _epoch(epoch)


def test_two_loaders_over_one_object_share_its_epochs() -> None:
    batches = _make()
    pairs = list(zip(_loader(batches, "fork"), _loader(batches, "fork"), strict=True))
    served = [_plain([pair[k] for pair in pairs]) for k in range(2)]
    assert served in ([_epoch(0), _epoch(1)], [_epoch(1), _epoch(0)])


def test_loaders_that_share_a_sampler_do_not_share_its_epoch() -> None:
    sampler = UniformSampler(_seen(), seed=1)
    first, second = _make(sampler), _make(sampler)
    second.set_epoch(5)
    pairs = list(zip(first, second, strict=True))
    assert _plain([pair[0] for pair in pairs]) == _epoch(0)
    assert _plain([pair[1] for pair in pairs]) == _epoch(5)


def test_an_iterator_that_has_served_nothing_follows_set_epoch() -> None:
    batches = _make()
    iterator = iter(batches)
    batches.set_epoch(4)
    assert _plain(iterator) == _epoch(4)
    assert _plain(batches) == _epoch(5)
    iterator = iter(batches)
    first = _plain([next(iterator)])
    batches.set_epoch(1)
    assert first + _plain(iterator) == _epoch(6)  # it ends what it has begun
    assert _plain(batches) == _epoch(1)


def test_workers_at_work_follow_set_epoch() -> None:
    batches = _make(batch_size=1)
    wanted, before = _epoch(3, batch_size=1), _epoch(0, batch_size=1)
    iterator = iter(_loader(batches, "fork"))
    first = next(iterator)
    batches.set_epoch(3)
    served = _plain([first, *iterator])
    ahead = next(k for k in range(EXAMPLES) if served[k] == wanted[k])
    assert 1 <= ahead < EXAMPLES // 2  # those that were made ahead
    assert served[:ahead] == before[:ahead]
    assert served[ahead:] == wanted[ahead:]
    assert _plain(batches) == _epoch(4, batch_size=1)


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    batches = _make()
    _plain(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    assert (state["epoch"], state["next_batch"]) == (0, 4)
    resumed = _make()
    resumed.load_state_dict(state)
    assert resumed.epoch == 1
    assert _plain(resumed) == _epoch(1)
    copied = pickle.loads(pickle.dumps(batches))  # noqa: S301
    assert copied.state_dict() == batches.state_dict()


def _other_samplers() -> list[Any]:
    seen = _seen()
    uniform, popular = UniformSampler(seen, seed=1), PopularitySampler(seen, seed=1)
    dates = np.arange(ITEMS)
    return [
        uniform,
        UniformSampler(seen, seed=2),
        UniformSampler(seen, seed=1, name="other"),
        UniformSampler(seen, seed=1, replacement=False),
        UniformSampler(seen.select(np.arange(39)), seed=1),
        uniform.spawn("x"),
        popular,
        PopularitySampler(np.arange(ITEMS), seed=1),
        PopularitySampler(np.arange(ITEMS), seed=1, exponent=0.5),
        LogUniformSampler(seen, seed=1),
        MixedSampler([(uniform, 1.0), (popular, 1.0)]),
        MixedSampler([(uniform, 1.0), (popular, 2.0)]),
        MixedSampler([(uniform, 1.0), (popular, 1.0)], mode="quota"),
        ListedSampler([[3], [], [], [], []], fallback=uniform, interactions=seen),
        ListedSampler([[4], [], [], [], []], fallback=uniform, interactions=seen),
        ListedSampler([[4], [], [], [], []], fallback=popular, interactions=seen),
        GroupedSampler(seen, {"g": np.arange(ITEMS) % 2}),
        GroupedSampler(seen, {"g": np.arange(ITEMS) % 3}),
        AvailableSampler(seen, dates, smoothing=1.0),
        AvailableSampler(seen, dates // 2, smoothing=1.0),
        StreamingPopularitySampler(seen, smoothing=1.0),
        StreamingPopularitySampler(seen, smoothing=2.0),
        StreamingPopularitySampler(seen, smoothing=2.0, halve_every=5),
    ]


def test_a_state_knows_its_samplers() -> None:
    """Each has a fingerprint of its own, the same for the same sampler made again."""
    prints = [sampler.fingerprint() for sampler in _other_samplers()]
    assert len(set(prints)) == len(prints)
    assert prints == [sampler.fingerprint() for sampler in _other_samplers()]
    moved = UniformSampler(_seen(), seed=1)
    moved.set_epoch(4)
    moved.sample([0], 3)
    assert moved.fingerprint() == prints[0]  # epoch and row are no part of it


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sampler": "other"}, "sampler"),
        ({"sampler": None}, "sampler"),
        ({"num_negatives": 3}, "num_negatives"),
        ({"num_shared": 4}, "num_shared"),
        ({"shared_sampler": "other"}, "shared_sampler"),
        ({"rewards": True}, "weights"),
        ({"user_balance": 0.5}, "weights"),
        ({"draws": "one"}, "draws"),
        ({"seed": 1}, "seed"),
    ],
)
def test_states_of_other_batches_are_refused(changes: dict[str, Any], field: str) -> None:
    seen = _seen()
    given = {"other": UniformSampler(seen, seed=9), "one": [Draw(UniformSampler(seen), 2)]}
    changes = {key: given.get(value, value) if isinstance(value, str) else value
               for key, value in changes.items()}  # fmt: skip
    other = NegativeBatches(
        seen,
        **{
            "batch_size": 10,
            "sampler": UniformSampler(seen, seed=1),
            "num_negatives": 2,
            "shared_sampler": UniformSampler(seen, seed=1, name="shared"),
            "num_shared": 3,
            **changes,
        },
    )
    state = _make().state_dict()
    with pytest.raises(CheckpointError, match=f"load_state_dict: the state's {field} is"):
        other.load_state_dict(state)
    assert other.state_dict()["next_batch"] == 0


def test_states_that_are_none() -> None:
    batches = _make()
    good = batches.state_dict()
    for state, message in [
        ({}, "not a loader's state"),
        (None, "not a loader's state"),
        ({**good, "epoch": -1}, "epoch = -1 is too small"),
        ({**good, "next_batch": 5}, "next_batch = 5 of 4"),
        ({**good, "next_batch": 1.5}, "next_batch"),
    ]:
        with pytest.raises((CheckpointError, FastnegError), match=message):
            batches.load_state_dict(state)
        assert batches.state_dict() == good


class Info:
    def __init__(self, worker: int, seed: int, num_workers: int = 2) -> None:
        self.id, self.seed, self.num_workers = worker, seed, num_workers


def test_the_list_holds_the_latest_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that begin late, seeds that come again, many epochs: as a list without an end."""
    shared = Position()
    for epoch in range(40):
        for worker in (1, 0):  # any of them may be the first
            monkeypatch.setattr(position, "fork_number", lambda n=2 * epoch + worker + 1: n)
            info = Info(worker, 100 + worker)
            monkeypatch.setattr(position, "loader_worker", lambda info=info: info)
            shared._process = -1  # a new process
            assert shared.begin()[1:] == (epoch, 0)
    assert shared.place() == (39, 0)
