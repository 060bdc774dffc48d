"""Fast path of ``sample``: known user codes and no positives, times, exclude, out or device.

A training step draws a few hundred negatives at a time, and the general path (a request, a plan,
lists, tiles) costs more than the draws. This path makes the same checks and draws the same ids, in
one call of a kernel where rows are narrow; all other requests, and all errors, are left to the
general path.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import AnyArray, IntArray, frozen
from fastneg.kernels.lean import REFUSED
from fastneg.kernels.scan import codes_within
from fastneg.samplers.base import Sampler
from fastneg.samplers.exclusion import Exclusion, ListFilters
from fastneg.samplers.results import Negatives
from fastneg.samplers.tiles import TILE, WIDE
from fastneg.threads import run_chunks

_NO_IDS = np.zeros(0, dtype=np.int64)
_NO_LOG_Q = np.zeros((0, 0), dtype=np.float32)  # "not asked for" to a kernel; never written
_MOST = 8 * TILE  # of more, the general way's overhead is a hundredth


# what draws are prepared with: not copied, not pickled
_PREPARED = {"_shared_filters": None, "_known_arrays": None, "_lean_calls": (None, None)}


class LeanCall(NamedTuple):
    """A kernel of ``kernels/lean.py`` and its facts; ``held``: the arrays that these point to."""

    kernel: Callable[..., int]
    facts: IntArray
    held: tuple[AnyArray, ...]


def lean_call(
    kernel: Callable[..., int],
    num_users: int,
    num_items: int,
    arrays: Sequence[AnyArray],
    dtypes: Sequence[Any],
) -> LeanCall:
    """The facts of arrays, made contiguous and of their dtypes where they are not."""
    held = tuple(
        np.require(array, dtype, ["C", "A"]) for array, dtype in zip(arrays, dtypes, strict=True)
    )
    facts = [num_users, num_items]
    for array in held:
        facts += [array.ctypes.data, array.size]
    return LeanCall(kernel, np.array(facts, dtype=np.int64), held)


class LeanSampler(Sampler, ABC):
    """A sampler over users' lists of positives that can draw without a plan."""

    _shared_filters: ListFilters | None = None
    _known_arrays: tuple[AnyArray, ...] | None = None
    _lean_calls: tuple[LeanCall | None, LeanCall | None] = (None, None)  # without log_q, with it

    @abstractmethod
    def _lean_ready(self) -> bool:
        """Whether every user has something left, and lists are by user."""

    @abstractmethod
    def _lean_call(self, log_q: bool) -> LeanCall:
        """The kernel of small requests, for this sampler as it is."""

    @abstractmethod
    def _lean_draw(self, key: np.uint64, owner: IntArray, rows: IntArray, items: IntArray) -> None:
        """Draw into items [B, K] for users ``owner`` [B] by the general kernels."""

    @abstractmethod
    def _lean_log_q(self, owner: IntArray, items: IntArray, out: npt.NDArray[np.float32]) -> None:
        """The log-probabilities [B, K] of what was drawn."""

    def _known_lists(self) -> Exclusion:
        """The users' positives, for no rows yet; no lists without interactions."""
        known = self.interactions
        if known is None:
            return Exclusion(np.zeros(1, dtype=np.int64), _NO_IDS, _NO_IDS)
        return Exclusion(known.positive_indptr, known.positive_items, _NO_IDS, source=known)

    def _filters(
        self, exclusion: Exclusion, attempts: npt.NDArray[np.int8], num_draws: int
    ) -> ListFilters:
        """Filters of the lists; those of the users' positives are kept."""
        if not exclusion.shared:
            return exclusion.filters(num_draws, attempts, self.memory_budget)
        if self._shared_filters is None:
            self._shared_filters = exclusion.filters(num_draws, attempts, self.memory_budget)
        return self._shared_filters

    def memory(self) -> dict[str, int]:
        """Bytes held now, by what they are for; what ``memory_budget`` bounds is among them."""
        if self._shared_filters is None:
            return {}
        return {"filters": sum(part.nbytes for part in self._shared_filters)}

    def _list_arrays(self, attempts: npt.NDArray[np.int8]) -> tuple[AnyArray, ...]:
        """indptr, excluded, metas, words, attempts: what a kernel knows of the users' positives."""
        if self._known_arrays is None:
            known = self._known_lists()
            filters = self._filters(known, attempts, 0)
            self._known_arrays = (known.indptr, known.items, *filters, attempts)
        return self._known_arrays

    def _forget_arrays(self) -> None:
        """Prepare anew what draws are prepared with: lists, filters, addresses."""
        self.__dict__.update(_PREPARED)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **_PREPARED}

    def _lean_call_of(self, log_q: bool) -> LeanCall:
        """``_lean_call``, made when it is first needed."""
        made = self._lean_call(log_q)
        self._lean_calls = (self._lean_calls[0], made) if log_q else (made, self._lean_calls[1])
        return made

    def _sample_lean(self, users: Any, width: Any, rows: Any, log_q: Any) -> Negatives | None:
        torch = sys.modules.get("torch")
        if torch is None or type(width) is not int or not self.replacement:
            return None
        if log_q is not True and log_q is not False:
            return None
        if type(users) is torch.Tensor:
            if users.dtype is not torch.int64 or users.dim() != 1 or not _is_plain(users, torch):
                return None
        elif type(users) is not np.ndarray or not _is_row(users):
            return None
        count = users.shape[0]
        if not 1 <= width <= TILE or not 0 < count * width <= _MOST or not self._lean_ready():
            return None
        numbers = None
        if rows is not None:
            if type(rows) is not np.ndarray or rows.shape != (count,) or rows.dtype != np.int64:
                return None
            numbers = rows if _is_row(rows) else np.require(rows, requirements=["C", "A"])
        first = 0 if numbers is not None else self._counter.reserve(count)
        items = np.empty((count, width), np.int64)
        out = np.empty((count, width), np.float32) if log_q else _NO_LOG_Q
        left = 1
        if width < WIDE:
            left = self._draw_narrow(users, numbers, first, items, out, log_q)
        if left > 0:
            left = self._draw_whole(users, numbers, first, items, out if log_q else None)
        if left < 0:
            if numbers is None:
                self._counter.give_back(first, count)
            return None
        tensor = torch.from_numpy
        source = np.zeros((count, width), np.int8)
        return Negatives(tensor(items), tensor(out) if log_q else None, tensor(source))

    def _draw_narrow(
        self,
        users: Any,
        rows: IntArray | None,
        first: int,
        items: IntArray,
        out: npt.NDArray[np.float32],
        log_q: bool,
    ) -> int:
        """By the kernel of small requests; the cells left, or ``REFUSED``."""
        call = self._lean_calls[1 if log_q else 0] or self._lean_call_of(log_q)
        place = users.ctypes.data if type(users) is np.ndarray else users.data_ptr()
        given = 0 if rows is None else rows.ctypes.data
        key = self._key("")
        if items.size < 2 * TILE:
            return call.kernel(call.facts, place, given, first, key, items, out)
        left = []

        # a chunk may go on after Ctrl-C has ended this call: it holds what its addresses point to
        def draw(i: int, j: int, _held: Any = (users, rows, call)) -> None:
            numbers = given and given + 8 * i
            what = (place + 8 * i, numbers, first + i, key, items[i:j], out[i:j])
            left.append(call.kernel(call.facts, *what))

        run_chunks(draw, len(items), smallest=TILE // items.shape[1])
        return min(left) if min(left) < 0 else sum(left)

    def _draw_whole(
        self,
        users: Any,
        rows: IntArray | None,
        first: int,
        items: IntArray,
        out: npt.NDArray[np.float32] | None,
    ) -> int:
        """All cells by the general kernels; 0, or ``REFUSED``."""
        # copies: another thread may write to the caller's array after it was checked
        owner = frozen(np.array(users if type(users) is np.ndarray else users.numpy()))
        if not codes_within(owner, -1, self._num_users() or 0):
            return REFUSED
        numbers = frozen(np.arange(first, first + len(owner)) if rows is None else rows.copy())
        if rows is not None and not codes_within(numbers, 0, 2**63 - 1):
            return REFUSED
        key = self._key("")

        def draw(i: int, j: int) -> None:
            self._lean_draw(key, owner[i:j], numbers[i:j], items[i:j])
            if out is not None:
                self._lean_log_q(owner[i:j], items[i:j], out[i:j])

        run_chunks(draw, len(items), smallest=TILE // items.shape[1])
        return 0


def _is_row(users: AnyArray) -> bool:
    """Whether an array is C-contiguous, aligned int64 [B]."""
    flags = users.flags
    return users.dtype == np.int64 and users.ndim == 1 and flags.c_contiguous and flags.aligned


def _is_plain(users: Any, torch: Any) -> bool:
    """Whether the numbers of a tensor lie side by side in memory that its address names."""
    if not users.is_cpu or users.layout is not torch.strided or not users.is_contiguous():
        return False
    try:  # tensors of torch's transforms have no address, an emptied storage has 0
        return users.data_ptr() != 0 and not users.is_neg()
    except RuntimeError:
        return False
