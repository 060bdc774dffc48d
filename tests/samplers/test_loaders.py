"""DataLoader workers and forked processes draw what one process would."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fastneg import threads
from fastneg.samplers.base import Sampler
from fastneg.samplers.uniform import UniformSampler
from tests.samplers import golden

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

EXAMPLES = 48
KINDS = ("uniform", "popularity", "mixed draw", "listed", "popularity distinct")


class Examples(Dataset[Any]):
    """Example i is a user with its negatives from every sampler, by its global index."""

    def __init__(self) -> None:
        self.samplers: dict[str, Sampler] = {name: golden.SAMPLERS[name]() for name in KINDS}

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        user = index * 7 % golden.NUM_USERS
        drawn = [s.sample([user], 4, rows=[index]).items[0] for s in self.samplers.values()]
        return torch.stack(drawn)


class Endless(IterableDataset[Any]):
    """Every worker draws by its own counter."""

    def __init__(self) -> None:
        self.sampler = UniformSampler(2**40)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(8):
            yield self.sampler.sample([-1, -1], 16).items
            yield self.sampler.sample_shared(16).items.expand(2, 16)


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    users = np.arange(EXAMPLES) * 7 % golden.NUM_USERS
    drawn = [
        golden.SAMPLERS[name]().sample(users, 4, rows=np.arange(EXAMPLES)).items for name in KINDS
    ]
    return torch.stack(drawn, dim=1)


WAYS = [
    (0, None),
    *((workers, "fork") for workers in (1, 4)),
    *((workers, "forkserver") for workers in (1, 4)),
    (4, "spawn"),  # each worker imports everything anew
]


@pytest.mark.parametrize(("workers", "way"), WAYS)
def test_examples_do_not_depend_on_workers(
    workers: int, way: str | None, expected: torch.Tensor
) -> None:
    if way == "forkserver":  # import once, not once a worker
        multiprocessing.get_context(way).set_forkserver_preload([__name__])
    loader = DataLoader(Examples(), batch_size=5, num_workers=workers, multiprocessing_context=way)
    assert torch.equal(torch.cat(list(loader)), expected)


def test_workers_that_count_rows_themselves_do_not_repeat_one_another() -> None:
    loader = DataLoader(Endless(), batch_size=None, num_workers=3, multiprocessing_context="fork")
    batches = list(loader)
    assert len(batches) == 3 * 16
    drawn = torch.cat([batch if batch[0, 0] != batch[1, 0] else batch[:1] for batch in batches])
    alone = torch.cat(list(Endless()))
    assert drawn.unique().numel() == drawn.numel()
    assert not np.intersect1d(drawn, alone).size  # nor what the parent draws


def test_the_check_sees_a_generator_that_every_worker_repeats() -> None:
    loader = DataLoader(Repeating(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    drawn = torch.cat(list(loader))
    assert drawn.unique().numel() < drawn.numel()


class Repeating(IterableDataset[Any]):
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield torch.from_numpy(self.rng.integers(0, 2**40, 16))


def _draw_in_child(sampler: Sampler, users: np.ndarray, queue: Any) -> None:
    threads.set_num_threads(3)
    items = sampler.sample(users, 8, rows=np.arange(len(users))).items
    queue.put(items.numpy())


def test_fork_after_threads_were_used() -> None:
    sampler = golden.SAMPLERS["mixed draw"]()
    users = np.arange(20_000) % golden.NUM_USERS
    threads.set_num_threads(3)
    try:
        wanted = sampler.sample(users, 8, rows=np.arange(20_000)).items.numpy()
    finally:
        threads.set_num_threads(None)
    assert threads._pool is not None  # threads were there when the child was made
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_draw_in_child, args=(sampler, users, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(got, wanted)


def test_loader_workers_use_one_thread() -> None:
    loader = DataLoader(Threads(), batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert [tuple(seen) for seen in loader] == [(1, 0)]
    assert threads.in_loader_worker() is None


class Threads(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        yield threads.get_num_threads(), threads.in_loader_worker()
