"""Batches made ready while the model is busy with those before them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from fastneg.training.batches import Batch, NegativeBatches

Given = TypeVar("Given")
Made = TypeVar("Made")

_NOTHING_LEFT = object()


def ahead(source: Iterable[Given], make: Callable[[Given], Made]) -> Generator[Made, None, None]:
    """``make`` of everything in ``source``, in order, the next one made on a thread of its own.

    The same as ``map(make, source)``, but that one more is taken from ``source`` than is asked
    for, on another thread. What is raised there is raised here, in its place. Closing the generator
    waits for what is under way.
    """
    items = iter(source)
    with ThreadPoolExecutor(1, "fastneg-ahead") as pool:
        following = pool.submit(_make_next, items, make)
        while True:
            made = following.result()
            if made is _NOTHING_LEFT:
                return
            following = pool.submit(_make_next, items, make)
            yield made  # type: ignore[misc]


def _make_next(items: Iterator[Given], make: Callable[[Given], Made]) -> Made | object:
    for item in items:
        return make(item)
    return _NOTHING_LEFT


def loader(
    batches: NegativeBatches, *, num_workers: int, pin_memory: bool, spawn: bool
) -> Iterable[Batch]:
    """The batches themselves, or a DataLoader whose workers make them (spawned or forked)."""
    if num_workers == 0:
        return batches
    made: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="spawn" if spawn else None,
        pin_memory=pin_memory,
    )
    return made
