"""Ranks that are threads of one process: what several do, without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from fastneg.training.distributed import ALONE, Ranks

_LOCAL = threading.local()


class Meeting:
    """Where the threads meet to exchange tensors."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots: list[Any] = [None] * size
        self.count = 0


class ThreadRanks(Ranks):
    def __init__(self, rank: int, size: int, meeting: Meeting) -> None:
        super().__init__(rank, size)
        self.meeting = meeting

    def _all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        slots = self.meeting.slots
        slots[self.rank] = tensor.detach().clone()
        self.meeting.barrier.wait()
        assert len({(one.shape, one.dtype) for one in slots}) == 1, "ranks exchange unlike tensors"
        found = [one.clone() for one in slots]
        self.meeting.barrier.wait()
        if self.is_first:
            self.meeting.count += 1
        return found

    def _all_reduce(self, tensor: torch.Tensor) -> None:
        tensor.copy_(torch.stack(self._all_gather(tensor)).sum(0))

    def _broadcast(self, tensor: torch.Tensor) -> None:
        slots = self.meeting.slots
        slots[self.rank] = tensor.detach().clone()
        self.meeting.barrier.wait()
        assert len({(one.shape, one.dtype) for one in slots}) == 1, "ranks exchange unlike tensors"
        tensor.copy_(slots[0])
        self.meeting.barrier.wait()


def here() -> Ranks:
    """For ``monkeypatch.setattr(Ranks, "here", here)``: those of the thread."""
    return getattr(_LOCAL, "ranks", ALONE)


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What each of ``size`` ranks returns; the first error that is no consequence of another."""
    meeting = Meeting(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        _LOCAL.ranks = ThreadRanks(rank, size, meeting)
        try:
            results[rank] = work(_LOCAL.ranks)
        except threading.BrokenBarrierError as error:
            errors.append(error)
        except BaseException as error:  # noqa: BLE001
            errors.insert(0, error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
