"""A loader of one's own: nothing repeats from epoch to epoch, between workers, or between ranks."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler

EXAMPLES, ITEMS = 12, 1 << 20  # by chance, no two of so few draws are equal
WAYS = [
    (way, persistent) for way in ("fork", "spawn", "forkserver") for persistent in (False, True)
]
USERS = np.arange(EXAMPLES) % 4


def _seen() -> Interactions:
    return Interactions.from_codes([0, 1, 2, 3], [0, 1, 2, 3], num_items=ITEMS)


def _samplers() -> dict[str, Sampler]:
    seen = _seen()
    uniform = UniformSampler(seen, seed=1)
    popular = PopularitySampler(seen, exponent=0.0, smoothing=1.0, seed=1)
    return {
        "uniform": uniform,
        "mixed": MixedSampler([(uniform, 1.0), (MixedSampler([(popular, 1.0)]), 1.0)], seed=1),
        "listed": ListedSampler([[], [], [], []], fallback=uniform, interactions=seen),
        "distinct": UniformSampler(seen, seed=1, replacement=False, name="distinct"),
    }


class Examples(Dataset[Any]):
    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> int:
        return index


class Collate:
    """Draws in the worker, for the examples of a batch: by their numbers, and by a counter."""

    def __init__(self, samplers: dict[str, Sampler]) -> None:
        self.samplers = samplers

    def __call__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.draw(indices, np.array(indices)), self.draw(indices, None)

    def draw(self, indices: list[int], rows: Any) -> torch.Tensor:
        users = USERS[indices]
        drawn = [one.sample(users, 3, rows=rows).items for one in self.samplers.values()]
        row = None if rows is None else int(rows[0])
        return torch.cat([*drawn, self.samplers["uniform"].sample_shared(3, row=row).items[None]])


class MadeInTheWorker:
    """As ``Collate``, with samplers that no other process has ever seen."""

    def __init__(self) -> None:
        self.collate: Collate | None = None

    def __call__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.collate = self.collate or Collate(_samplers())
        return self.collate(indices)

    def __getstate__(self) -> dict[str, Any]:
        return {"collate": None}


def _loader(collate: Any, way: str | None, persistent: bool = False) -> DataLoader[Any]:
    return DataLoader(
        Examples(), batch_size=3, collate_fn=collate, num_workers=2 if way else 0,
        multiprocessing_context=way, persistent_workers=persistent,
    )  # fmt: skip


def _drawn(loader: DataLoader[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    by_row, counted = zip(*loader, strict=True)
    return torch.cat(by_row), torch.cat(counted)


@pytest.mark.parametrize(("way", "persistent"), WAYS)
def test_epochs_in_workers(way: str, persistent: bool) -> None:
    """``set_epoch`` reaches them; with ``rows=`` they draw what one process alone draws; without,
    nothing repeats.
    """
    if way == "forkserver":  # import once, not once a worker
        multiprocessing.get_context(way).set_forkserver_preload([__name__])
    samplers, alone = _samplers(), _samplers()
    loader = _loader(Collate(samplers), way, persistent)
    by_rows, every = [], []
    for epoch in (0, 5):
        for one in (*samplers.values(), *alone.values()):
            one.set_epoch(epoch)
        torch.manual_seed(1)  # torch gives its workers the same seeds in every epoch then
        by_row, counted = _drawn(loader)
        assert torch.equal(by_row, _drawn(_loader(Collate(alone), None))[0])
        by_rows.append(by_row)
        every += [counted, _drawn(_loader(Collate(samplers), None))[1]]
    for drawn in (torch.cat(by_rows), torch.cat(every)):
        assert drawn.unique().numel() == drawn.numel()


def test_nothing_repeats_without_set_epoch() -> None:
    samplers = _samplers()
    loader = _loader(Collate(samplers), "fork")
    drawn = []
    for _ in range(3):
        torch.manual_seed(1)
        drawn.append(_drawn(loader)[1])
    every = torch.cat([*drawn, _drawn(_loader(Collate(samplers), None))[1]])
    assert every.unique().numel() == every.numel()


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_nor_with_samplers_that_workers_make(way: str) -> None:
    loader = _loader(MadeInTheWorker(), way)
    once = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        once.append(_drawn(loader)[1])
    every = torch.cat(once[:2])
    assert every.unique().numel() == every.numel()
    assert torch.equal(once[0], once[2])  # by torch's seed, from run to run


_RANK = """
import json, sys
import numpy as np, torch, fastneg
from torch import distributed
way = sys.argv[1]
seen = fastneg.Interactions.from_codes([0, 1], [0, 1], num_items=1 << 28)
sampler = fastneg.UniformSampler(seen, seed=1)
if way == "group":
    store = distributed.FileStore(sys.argv[2], 2)
    distributed.init_process_group("gloo", store=store, rank=int(sys.argv[3]), world_size=2)
users = np.array([0, 1] * 4)
loader = torch.utils.data.DataLoader(
    range(8), batch_size=4, num_workers=1, multiprocessing_context="fork",
    collate_fn=lambda rows: sampler.sample(users[rows], 3).items,
)
torch.manual_seed(1)
print(json.dumps({
    "own": [sampler.sample(users, 3).items.tolist(), sampler.sample_shared(9).items.tolist(),
            sampler.spawn("x").sample(users, 3).items.tolist(), torch.cat(list(loader)).tolist()],
    "by row": sampler.sample(users, 3, rows=np.arange(8)).items.tolist(),
}))
if way == "group":
    distributed.destroy_process_group()
"""


def _flat(numbers: Any) -> list[int]:
    return [one for part in numbers for one in (_flat(part) if isinstance(part, list) else [part])]


@pytest.mark.parametrize("way", ["group", "launcher"])
def test_two_ranks_with_one_seed_do_not_draw_the_same(way: str, tmp_path: Path) -> None:
    processes = []
    for rank in range(2):
        known = {"RANK": str(rank), "WORLD_SIZE": "2"} if way == "launcher" else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _RANK, way, str(tmp_path / "store"), str(rank)],
                env={**os.environ, **known},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert answers[0]["by row"] == answers[1]["by row"]
    every = [one for answer in answers for one in _flat(answer["own"])]
    assert len(set(every)) == len(every)
    seen = Interactions.from_codes([0, 1], [0, 1], num_items=1 << 28)
    alone = UniformSampler(seen, seed=1).sample(np.array([0, 1] * 4), 3).items
    assert answers[0]["own"][0] == alone.tolist()  # rank 0 draws what one process alone draws
