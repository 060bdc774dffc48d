"""Batches made ready while the model is busy with those before them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from fastneg.training.batches import Batch, NegativeBatches

Given = TypeVar("Given")
Made = TypeVar("Made")

_ENOUGH = 8 << 20  # bytes made in one go
_MOST = 16


def ahead(
    source: Iterable[Given], make: Callable[[Given], Made], size: Callable[[Made], int]
) -> Generator[Made, None, None]:
    """``make`` of everything in ``source``, in order, some of them at a time on another thread.

    The same as ``map(make, source)``, but that more is taken from ``source`` than is asked for.
    Small things are made several in a row: between them the training step would clear the caches
    of their data and of the code that makes them, which then takes several times as long. What is
    raised there is raised here, in its place. Closing the generator waits for what is under way.

    Args:
        source: ``iter`` of it is called on this thread, and that is asked on the other one.
        make: called on the other thread.
        size: bytes of what was made.
    """
    items = iter(source)
    with ThreadPoolExecutor(1, "fastneg-ahead") as pool:
        following = pool.submit(_make_some, items, make, size)
        while True:
            made, error = following.result()
            if error is None and made:
                following = pool.submit(_make_some, items, make, size)
            yield from made
            if error is not None:
                raise error
            if not made:
                return


def _make_some(
    items: Iterator[Given], make: Callable[[Given], Made], size: Callable[[Made], int]
) -> tuple[list[Made], BaseException | None]:
    """As many as are worth a turn, and what ended it early."""
    made: list[Made] = []
    total = 0
    try:
        for item in items:
            made.append(make(item))
            total += size(made[-1])
            if total >= _ENOUGH or len(made) >= _MOST:
                break
    except BaseException as error:  # noqa: BLE001, for the thread that asked
        return made, error
    return made, None


def loader(
    batches: NegativeBatches, num_workers: int, *, pin_memory: bool, spawn: bool
) -> Iterable[Batch]:
    """The batches themselves, or a DataLoader whose workers make them (spawned or forked)."""
    if num_workers == 0:
        return batches
    made: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="spawn" if spawn else None,
        generator=torch.Generator(),  # else a loader takes a word of the stream that dropout uses
        pin_memory=pin_memory,
    )
    return made
