"""What tables of items have in common: masses, logarithms, sums, drawing into arrays."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    FloatArray,
    IntArray,
    as_flag,
    as_integer,
    as_name,
    as_path,
    fail,
    frozen,
    refreeze,
)
from fastneg.errors import said_by
from fastneg.kernels.complement import running_sums
from fastneg.kernels.pow import log_masses
from fastneg.locks import Lock
from fastneg.samplers.masses import Masses
from fastneg.streams import RowCounter, key_of, stream_of
from fastneg.threads import run_chunks

if TYPE_CHECKING:
    from fastneg.storage import SavedFolder

Bits = npt.NDArray[np.uint32]
_VERSION = 2  # of saved tables
_SMALLEST = 32_768  # draws that are worth a thread
_COARSEST = 4096  # items that one running sum stands for at most


class ItemTable(ABC):
    """A table that draws items 0..n-1 in proportion to whole masses.

    Attributes:
        kind: what the manifest of a saved table says that it is.
        num_items: n.
        total: what the masses sum to.
        folder: where it is mapped from; None for a table in memory.
        verify: whether checksums are compared where it is opened (again, by other processes).
        error: ``max_relative``, the largest relative error of a probability against the weight
            asked for, and ``total_variation``, half the sum of absolute errors.
        item_ids: the fingerprint of the items' ids, where it is known.
    """

    kind: str
    num_items: int
    total: int
    error: dict[str, float]
    verify: bool
    seed: int
    name: str
    item_ids: str | None = None
    _digest: str | None = None

    def _begin(
        self, *, seed: int, name: str, folder: str | None = None, verify: bool = True, call: str
    ) -> None:
        self.folder, self.verify = folder, verify
        self.seed = as_integer(seed, call=call, name="seed")
        self.name = as_name(name, call=call, name="name")
        self._counter = RowCounter()
        self._lock = Lock()
        self._made: dict[str, Any] = {}
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_lock": None, "_made": {}}
        if self.folder is not None:  # an opened table is opened again: processes share it
            kept = ("folder", "verify", "seed", "name", "_counter")
            state = {name: state[name] for name in kept}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["folder"] is not None:
            opened = {name: state[name] for name in ("seed", "name", "verify")}
            self._read(state["folder"], **opened)
            self._counter = state["_counter"]
            return
        self.__dict__.update(state)
        self._lock = Lock()
        for value in self.__dict__.values():
            refreeze(value)

    def _once(self, name: str, make: Any) -> Any:
        """What ``make`` returns, made when it is first needed."""
        if name not in self._made:
            with self._lock:
                if name not in self._made:
                    self._made[name] = make()
        return self._made[name]

    # ---------------------------------------------------------------- what a table says
    @abstractmethod
    def _take(self, saved: SavedFolder, error: dict[str, float]) -> None:
        """Become the saved table; whatever a kernel relies on is checked.

        Raises:
            FileFormatError: it is damaged.
        """

    @abstractmethod
    def _make_masses(self) -> Masses:
        """uint64 [n]."""

    @abstractmethod
    def _draw_into(
        self, key: int, row: int, first: int, items: IntArray, log_q: Bits | None
    ) -> None:
        """Draw into ``items`` [k], and the bits of float32 log-probabilities into ``log_q`` [k]."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is drawn from: saved, opened, hashed."""

    @property
    @abstractmethod
    def num_reachable(self) -> int:
        """How many items have a mass."""

    # ---------------------------------------------------------------- made when needed
    @property
    def masses(self) -> Masses:
        """uint64 [n] that sum to ``total``: q_i = masses[i] / total."""
        return self._once("masses", lambda: frozen(self._make_masses()))  # type: ignore[no-any-return]

    @property
    def log_q(self) -> FloatArray:
        """float64 [n]: ln(masses[i] / total), -inf for 0."""
        return self._once("log_q", lambda: self._make_log_q(self.masses))  # type: ignore[no-any-return]

    def _make_log_q(self, masses: Masses | None = None) -> FloatArray:
        if masses is None:
            masses = frozen(self._make_masses())
        log_q = np.empty(self.num_items, dtype=np.float64)
        run_chunks(
            lambda i, j: log_masses(masses[i:j], float(self.total), log_q[i:j]),
            self.num_items,
            smallest=65_536,
        )
        return frozen(log_q)

    def running_sums(self, memory_budget: int) -> tuple[Masses, int]:
        """(starts, stride): the mass before every stride-th item.

        The stride is the smallest power of 2 that keeps ``starts`` within ``memory_budget`` bytes
        (4,096 at most: 2 bits an item); it decides speed only.
        """
        call = f"{type(self).__name__}.running_sums"
        memory_budget = as_integer(memory_budget, call=call, name="memory_budget", minimum=0)
        stride = 1
        while 8 * (self.num_items // stride + 1) > memory_budget and stride < _COARSEST:
            stride *= 2

        def make() -> tuple[Masses, int]:
            starts = np.empty(-(-self.num_items // stride), dtype=np.uint64)
            running_sums(self.masses, stride, starts)
            return frozen(starts), stride

        return self._once(f"starts {stride}", make)  # type: ignore[no-any-return]

    def probabilities(self) -> FloatArray:
        """float64 [n]: what is really drawn, masses / total."""
        return self.masses.astype(np.float64) / float(self.total)

    def memory(self) -> dict[str, int]:
        """Bytes by what they are for, as held now."""
        held = {name: array.nbytes for name, array in self.arrays().items()}
        for name, value in self._made.items():
            array = value[0] if isinstance(value, tuple) else value
            place = name.split()[0]
            held[place] = held.get(place, 0) + array.nbytes
        return held

    def fingerprint(self) -> str:
        """A hash of the table: equal tables, equal hashes, on every machine."""
        if self._digest is None:  # a table never changes
            digest = hashlib.blake2b(digest_size=16)
            for array in self.arrays().values():
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
            self._digest = digest.hexdigest()
        return self._digest

    # ---------------------------------------------------------------- files
    def save(self, folder: str | Path) -> None:
        """Write the table to a folder that ``open`` maps into memory.

        Raises:
            FileFormatError: the folder cannot be written, or holds something else.
        """
        from fastneg.storage import write_folder

        # ``open`` counts again; the number in the manifest is for people
        facts = {"error": self.error, "num_reachable": self.num_reachable}
        if self.item_ids is not None:
            facts["item_ids"] = self.item_ids
        write_folder(
            folder, call=f"{type(self).__name__}.save", kind=self.kind, version=_VERSION,
            arrays=self.arrays(), texts={}, facts=facts,
        )  # fmt: skip

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        seed: int = 0,
        name: str = "alias-table",
        verify: bool = True,
    ) -> Self:
        """A saved table, memory-mapped: processes that open the same one share its memory.

        Args:
            folder: from ``save``.
            seed, name: as for the class.
            verify: whether to compare the files' checksums, which reads every byte once; False
                opens maps too large for that. Whatever a kernel relies on is checked in any case.

        Raises:
            FileFormatError: not a saved table, or damaged.
        """
        place = as_path(folder, call=f"{cls.__name__}.open", name="folder")
        table = cls.__new__(cls)
        table._read(str(place.resolve()), seed=seed, name=name, verify=verify)
        return table

    def _read(self, folder: str, *, seed: int, name: str, verify: bool) -> None:
        """Become the table saved in a folder."""
        from fastneg.storage import SavedFolder

        call = f"{type(self).__name__}.open"
        saved = SavedFolder(folder, call=call, kind=self.kind, version=_VERSION, verify=verify)
        error, ids = saved.manifest.get("error"), saved.manifest.get("item_ids")
        if not isinstance(error, dict) or not isinstance(ids, str | None):
            raise saved.damaged("manifest.json", "facts are missing")
        self._begin(seed=seed, name=name, folder=folder, verify=verify, call=call)
        self._take(saved, error)
        self.item_ids = ids

    # ---------------------------------------------------------------- drawing
    def draw(
        self,
        num_draws: int,
        *,
        row: int | None = None,
        epoch: int = 0,
        log_q: bool = False,
        out: Any = None,
    ) -> Any:
        """int64 [num_draws]: independent draws; with ``log_q`` a pair (items, log_q float32).

        Args:
            num_draws: 1 or more.
            row: selects the random words; the same row gives the same draws. By default a counter.
            epoch: another epoch, other words.
            log_q: whether log-probabilities are wanted too.
            out: an int64 array or tensor [num_draws] to write into (a pair of it and a float32 one
                with ``log_q``): C-contiguous, writable, not overlapping.
        """
        import torch

        call = f"{type(self).__name__}.draw"
        count = as_integer(num_draws, call=call, name="num_draws", minimum=1, maximum=2**40)
        epoch = as_integer(epoch, call=call, name="epoch", minimum=0)
        log_q = as_flag(log_q, call=call, name="log_q")
        given = (out,) if out is not None and not log_q else out
        if given is None:
            with said_by(call):
                arrays: list[npt.NDArray[Any]] = [np.empty(count, np.int64)]
                arrays += [np.empty(count, np.float32)] if log_q else []
        else:
            arrays = check_buffers(given, ("items", "log_q")[: 1 + log_q], (count,), call=call)
        if row is None:
            row = self._counter.reserve(1)
        row = as_integer(row, call=call, name="row", minimum=0, maximum=2**63 - 1)
        key = key_of(self.seed, stream_of(self.name), epoch)
        self._draw_row(key, row, arrays[0], arrays[1] if log_q else None)
        if out is not None:
            return out
        tensors = [torch.from_numpy(array) for array in arrays]
        return tuple(tensors) if log_q else tensors[0]

    def _draw_row(
        self, key: int, row: int, items: IntArray, log_q: npt.NDArray[np.float32] | None
    ) -> None:
        """One row of draws on several threads; ``items`` [k] and ``log_q`` [k] are written."""
        bits = None if log_q is None else log_q.view(np.uint32)
        run_chunks(
            lambda i, j: self._draw_into(
                key, row, i, items[i:j], None if bits is None else bits[i:j]
            ),
            len(items),
            smallest=_SMALLEST,
        )


_DTYPES = {"items": np.int64, "log_q": np.float32, "source": np.int8}


def check_buffers(
    out: Any,
    names: tuple[str, ...],
    shape: tuple[int, ...],
    *,
    inputs: list[npt.NDArray[Any]] | None = None,
    call: str,
) -> list[npt.NDArray[Any]]:
    """NumPy views of buffers that are fit for kernels that assume no overlap.

    Raises:
        FastnegError: not C-contiguous, not writable, another shape or dtype, on another device, or
            overlapping one another or an input.
    """
    if not isinstance(out, tuple) or len(out) != len(names):
        fail(call, f"out should be a tuple of {', '.join(names)}")
    views: list[npt.NDArray[Any]] = []
    seen = list(inputs or [])
    for name, given in zip(names, out, strict=True):
        dtype = _DTYPES[name]
        if given is None:
            fail(call, f"out.{name} is None; give an array of shape {shape}, {np.dtype(dtype)}")
        if hasattr(given, "detach"):
            if str(given.device) != "cpu":
                fail(call, f"out.{name} is on {given.device}; give a CPU tensor or array")
            try:
                array = given.detach().numpy()
            except (TypeError, RuntimeError):  # bfloat16, sparse
                fail(call, f"out.{name} is of {given.dtype}; give a dense {np.dtype(dtype)}")
        else:
            array = given
        if not isinstance(array, np.ndarray):
            fail(call, f"out.{name} is a {type(given).__name__}, not an array")
        array = np.asarray(array)  # a plain view of memory maps and other subclasses
        if array.shape != shape or array.dtype != dtype:
            fail(
                call,
                f"out.{name} ({array.dtype}, shape {array.shape}) should be "
                f"({np.dtype(dtype)}, shape {shape})",
            )
        if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            fail(call, f"out.{name} is not C-contiguous, aligned and writable")
        if any(np.may_share_memory(array, other) for other in seen):
            fail(call, f"out.{name} overlaps another argument")
        seen.append(array)
        views.append(array)
    return views
