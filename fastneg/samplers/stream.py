"""Where a sampler stands in its stream of random words: seed, name, epoch, next row."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from fastneg.checks import as_integer
from fastneg.errors import CheckpointError
from fastneg.samplers.request import stream_name
from fastneg.streams import RowCounter, key_of, stream_of

STATE_VERSION = 1


class Stream:
    """The words of a sampler are a function of (seed, path of names, epoch, row, draw, attempt)."""

    kind: str = "sampler"
    num_items: int

    def __init__(self, *, seed: int, name: str | None, call: str) -> None:
        self.seed = as_integer(seed, call=call, name="seed")
        self.name = self.kind if name is None else stream_name(name, call)
        self.epoch = 0
        self._path: tuple[str, ...] = (self.name,)
        self._counter = RowCounter()
        self._keys: dict[tuple[Any, ...], np.uint64] = {}

    def _key(self, lane: str, purpose: str = "") -> np.uint64:
        """The key of the words for (seed, stream, epoch); lanes and purposes are own streams."""
        asked = (self.seed, self._path, self.epoch, lane, purpose)
        if asked not in self._keys:
            path = (
                self._path + ((f"/{lane}",) if lane else ()) + ((f"#{purpose}",) if purpose else ())
            )
            key = key_of(self.seed, stream_of(*path), self.epoch)
            self._keys = {**self._keys, asked: np.uint64(key)} if len(self._keys) < 16 else {}
            return np.uint64(key)
        return self._keys[asked]

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch: the same rows get new words."""
        self.epoch = as_integer(
            epoch, call=f"{type(self).__name__}.set_epoch", name="epoch", minimum=0
        )

    def spawn(self, name: str) -> Self:
        """A sampler of the same distribution with a stream of its own, counting rows from 0."""
        call = f"{type(self).__name__}.spawn"
        return self._bound(self.seed, (*self._path, stream_name(name, call)))

    def _bound(self, seed: int, path: tuple[str, ...]) -> Self:
        """A copy that shares the tables and draws from another stream."""
        other = copy.copy(self)
        other.seed, other._path, other._counter = seed, path, RowCounter()
        return other

    def state_dict(self) -> dict[str, Any]:
        """(seed, epoch, next row) and what they belong to; JSON-able."""
        return {
            "version": STATE_VERSION,
            "kind": self.kind,
            "path": list(self._path),
            "num_items": self.num_items,
            "seed": self.seed,
            "epoch": self.epoch,
            "next_row": self._counter.next_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        Raises:
            CheckpointError: the state of another version, kind, name or catalog.
        """
        call = f"{type(self).__name__}.load_state_dict"
        mine = self.state_dict()
        if not isinstance(state, dict) or set(state) != set(mine):
            raise CheckpointError(f"{call}: not a sampler's state; keys {sorted(mine)} expected")
        for field in ("version", "kind", "path", "num_items"):
            if state[field] != mine[field]:
                raise CheckpointError(
                    f"{call}: the state's {field} is {state[field]!r}, this sampler's is "
                    f"{mine[field]!r}"
                )
        seed = as_integer(state["seed"], call=call, name="seed")
        epoch = as_integer(state["epoch"], call=call, name="epoch", minimum=0)
        row = as_integer(state["next_row"], call=call, name="next_row", minimum=0, maximum=2**62)
        self.seed, self._counter = seed, RowCounter(row)
        self.set_epoch(epoch)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_items={self.num_items}, name={self.name!r}, "
            f"seed={self.seed}, epoch={self.epoch})"
        )
