"""How often does an item come up in a stream? Two hashed arrays know (Yi et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    FloatArray,
    IntArray,
    as_flag,
    as_integer,
    as_integers,
    as_number,
    as_weights,
    check_kind,
    fail,
    frozen,
    is_entry,
    is_series,
    shown,
    to_numpy,
)
from fastneg.errors import CheckpointError, said_by
from fastneg.kernels.frequency import add_rates, largest_gaps, see_items
from fastneg.locks import Lock
from fastneg.streams import key_of, stream_of
from fastneg.threads import uninterrupted

if TYPE_CHECKING:
    import torch

STATE_VERSION = 1
_SETTINGS = ("version", "num_slots", "num_hashes", "alpha", "per_batch", "seed")


class FrequencyEstimator:
    """The probability of each item in a stream whose law drifts, in constant memory.

    Every id (any int64, known in advance or not) has a slot in each of ``num_hashes`` arrays. A
    slot keeps A, the step at which it was last seen, and B, a moving average of the gaps::

        B = (1 - alpha) * B + alpha * (t - A); A = t

    1 / B estimates how often the slot comes up. Ids that share a slot can only shorten its gaps, so
    the largest B of an item's slots is its gap. A slot without an average takes its first gap
    whole, so that E[B] = 1/p from the first occurrence on. B fluctuates with variance
    alpha / (2 - alpha) (1 - p) / p^2, and 1/B is therefore too large by a share of alpha / 2.

    By default t counts events and 1 / gap is the probability that an event is of the item: an item
    seen k times among n events has a gap of n / k. With ``per_batch`` t counts calls of ``update``
    and 1 / gap is the probability that a batch holds the item, as in the paper; a slot counts once
    a batch.

    An item that was never seen, and is not in the prior, has a gap as long as the stream so far, or
    the longest of the prior where that is longer. An item that vanishes keeps its gap: B moves only
    when its slot is seen.

    Args:
        num_slots: slots per hash, 8 to 16 bytes for each; several times the number of items that
            matter.
        num_hashes: m.
        alpha: the weight of the newest gap, in (0, 1]: the memory is 1 / alpha occurrences.
        prior: [n] for the ids 0..n-1, what the gaps start from: counts or probabilities, 0 or more
            (they are divided by their sum); with ``per_batch`` the probability that a batch
            holds each item, 1 at most. A slot starts from what its items have together.
        per_batch: count batches in place of events.
        seed: chooses the hash functions; nothing else is random.

    Source: Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
    recommendations", algorithms 2 and 3.
    """

    def __init__(
        self,
        num_slots: int,
        *,
        num_hashes: int = 4,
        alpha: float = 0.01,
        prior: Any = None,
        per_batch: bool = False,
        seed: int = 0,
    ) -> None:
        call = "FrequencyEstimator"
        self.num_slots = as_integer(
            num_slots, call=call, name="num_slots", minimum=1, maximum=2**40
        )
        self.num_hashes = as_integer(
            num_hashes, call=call, name="num_hashes", minimum=1, maximum=64
        )
        self.alpha = as_number(alpha, call=call, name="alpha", minimum=0.0, maximum=1.0)
        if self.alpha == 0.0:
            fail(call, "alpha = 0.0 would never learn; give a number above 0")
        self.per_batch = as_flag(per_batch, call=call, name="per_batch")
        self.seed = as_integer(seed, call=call, name="seed")
        names = (f"hash {h}" for h in range(self.num_hashes))
        keys = [key_of(self.seed, stream_of("frequency", name)) for name in names]
        self._keys = frozen(np.array(keys, dtype=np.uint64))
        shape = (self.num_hashes, self.num_slots)
        with said_by(call):
            self._last: IntArray = np.zeros(shape, dtype=np.int64)
            self._gaps: FloatArray = np.zeros(shape, dtype=np.float64)
        self._clock: IntArray = np.zeros(1, dtype=np.int64)
        self._prior_gap = 1.0  # the longest gap of the prior
        self._lock = Lock(settled=True)
        if prior is not None:
            self._start_from(_rates(prior, self.per_batch, call))

    def _start_from(self, rates: FloatArray) -> None:
        slots = np.zeros_like(self._gaps)
        add_rates(frozen(rates), self.per_batch, self._keys, slots)
        with np.errstate(divide="ignore", over="ignore"):
            gaps = np.where(slots > 0.0, 1.0 / np.minimum(slots, 1.0), 0.0)
        self._gaps = np.minimum(gaps, 1e300)
        self._prior_gap = float(self._gaps.max(initial=1.0))

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {key: value for key, value in self.__dict__.items() if key != "_lock"}
            return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock(settled=True)
        self._keys = frozen(self._keys)

    @property
    def step(self) -> int:
        """t: the events counted so far, or the batches."""
        return int(self._clock[0])

    def update(self, items: Any) -> None:
        """Count a batch of events: int [n], any ids, repeated ones too, in the order they came.

        Counting events, it does not matter how the stream is cut into calls. Ctrl-C in the midst of
        it is raised when all are counted.
        """
        ids = frozen(as_integers(items, call="FrequencyEstimator.update", name="items"))
        with self._lock:
            see_items(
                ids, self._clock, self.per_batch, self.alpha, self._keys, self._last, self._gaps
            )

    def _gap(self, items: Any, name: str) -> tuple[FloatArray, Any]:
        ids = as_integers(items, call=f"FrequencyEstimator.{name}", name="items", ndim=None)
        out: FloatArray = np.empty(ids.size, dtype=np.float64)
        with self._lock:
            unknown = max(float(self.step), self._prior_gap)
            largest_gaps(frozen(ids.ravel()), unknown, self._keys, frozen(self._gaps), out)
        on_device = hasattr(items, "device") and hasattr(items, "detach")
        return out.reshape(ids.shape), items.device if on_device else None

    def gap(self, items: Any) -> torch.Tensor:
        """float64, the shape of ``items``: the mean number of steps between two occurrences."""
        return _tensor(*self._gap(items, "gap"))

    def probability(self, items: Any) -> torch.Tensor:
        """float64, the shape of ``items``: 1 / gap."""
        gap, device = self._gap(items, "probability")
        return _tensor(1.0 / gap, device)

    def log_q(self, items: Any) -> torch.Tensor:
        """float32, the shape of ``items``: -log(gap), 0 at most; for logQ corrections."""
        gap, device = self._gap(items, "log_q")
        return _tensor((-np.log(gap)).astype(np.float32), device)

    def merge(self, others: Iterable[FrequencyEstimator]) -> Self:
        """One estimator of the whole stream, of which this one and each of the others saw a part.

        Counting events, the parts are disjoint and the whole has n = sum of n_r events: rates add,
        each as a share of all events, so that 1/B = sum of (n_r / n) / B_r: with equal parts the
        clock of the whole is R times as fast, and its gap is the harmonic mean. Per batch, ranks
        see their own part of each batch and share the clock: the whole batch holds an item with
        probability 1 - prod(1 - 1/B_r). A slot that a rank does not know has rate 0 there.

        Returns:
            A new estimator with the clock of the whole; the ranks go on with their own.

        Raises:
            FastnegError: other slots, hashes, alpha, seed or mode; per batch, other clocks.
        """
        call = "FrequencyEstimator.merge"
        if not is_series(others):
            check_kind(call, list, "estimators in a list", others=others)
        ranks: list[FrequencyEstimator] = [self, *others]
        for k, rank in enumerate(ranks):
            if not isinstance(rank, FrequencyEstimator):
                fail(call, f"others[{k - 1}] is a {type(rank).__name__}")
            for field in _SETTINGS[1:]:
                mine, theirs = getattr(self, field), getattr(rank, field)
                if mine != theirs:
                    fail(call, f"others[{k - 1}] has {field} = {theirs!r}, here it is {mine!r}")
        parts = [rank.state_dict() for rank in ranks]  # each one as it is at one moment
        for k, part in enumerate(parts):
            if self.per_batch and part["step"] != parts[0]["step"]:
                fail(
                    call,
                    f"others[{k - 1}] saw {part['step']} batches, this one {parts[0]['step']}",
                )
        steps = [float(part["step"]) for part in parts]
        total = sum(steps)
        shares = [step / total if total else 1.0 / len(ranks) for step in steps]
        rates, last = np.zeros_like(self._gaps), np.zeros_like(self._last)
        for part, share in zip(parts, shares, strict=True):
            with np.errstate(divide="ignore"):
                rate = np.where(part["gaps"] > 0.0, 1.0 / part["gaps"], 0.0)
            if self.per_batch:
                rates += rate * (1.0 - rates)
                last = np.maximum(last, part["last"])
            else:  # event k of a rank is about event k / share of the whole
                rates += share * rate
                seen = part["last"] / share if share else part["last"] * 0.0
                last = np.maximum(last, np.rint(seen))
        merged = type(self)(
            self.num_slots,
            num_hashes=self.num_hashes,
            alpha=self.alpha,
            per_batch=self.per_batch,
            seed=self.seed,
        )
        with np.errstate(divide="ignore"):
            merged._gaps = np.where(rates > 0.0, 1.0 / rates, 0.0)
        merged._last = last.astype(np.int64)
        merged._clock[0] = parts[0]["step"] if self.per_batch else int(total)
        merged._prior_gap = max(part["prior_gap"] for part in parts)
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Settings and clock (JSON-able) and copies of ``last`` and ``gaps`` [m, slots].

        The arrays are for a checkpoint's tensors, the rest for its facts.
        """
        with self._lock:
            return {
                **self._settings(),
                "step": self.step,
                "prior_gap": self._prior_gap,
                "last": self._last.copy(),
                "gaps": self._gaps.copy(),
            }

    def _settings(self) -> dict[str, Any]:
        return {"version": STATE_VERSION, **{f: getattr(self, f) for f in _SETTINGS[1:]}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; arrays may come as tensors.

        Raises:
            CheckpointError: the state of another version or other settings; nothing changes then.
        """
        call = "FrequencyEstimator.load_state_dict"
        mine = self._settings()
        wanted = {*mine, "step", "prior_gap", "last", "gaps"}
        if not isinstance(state, dict) or set(state) != wanted:
            raise CheckpointError(f"{call}: not an estimator's state; keys {sorted(wanted)} wanted")
        for field, value in mine.items():
            if not is_entry(state[field], value):
                raise CheckpointError(
                    f"{call}: the state's {field} is {shown(state[field])}, this estimator's is "
                    f"{value!r}"
                )
        step = as_integer(state["step"], call=call, name="step", minimum=0, maximum=2**62)
        prior_gap = as_number(state["prior_gap"], call=call, name="prior_gap", minimum=1.0)
        last = to_numpy(state["last"], call=call, name="last")
        gaps = to_numpy(state["gaps"], call=call, name="gaps")
        dtypes = last.dtype == np.int64 and gaps.dtype == np.float64
        if not (dtypes and last.shape == gaps.shape == self._gaps.shape):
            raise CheckpointError(
                f"{call}: last and gaps should be int64 and float64 {self._gaps.shape}"
            )
        if not (np.isfinite(gaps).all() and (gaps >= 0).all() and (last >= 0).all()):
            raise CheckpointError(f"{call}: last and gaps should be 0 or more")

        def load() -> None:
            with self._lock:
                self._last, self._gaps = np.array(last, order="C"), np.array(gaps, order="C")
                self._clock, self._prior_gap = np.array([step], dtype=np.int64), prior_gap

        uninterrupted(load)

    def __repr__(self) -> str:
        return (
            f"FrequencyEstimator(num_slots={self.num_slots}, num_hashes={self.num_hashes}, "
            f"alpha={self.alpha}, per_batch={self.per_batch}, step={self.step})"
        )


def _rates(prior: Any, per_batch: bool, call: str) -> FloatArray:
    """float64 [n]: the probability of each item at t = 0."""
    rates = as_weights(prior, call=call, name="prior", what="give counts or probabilities")
    if per_batch:
        if float(rates.max()) > 1.0:
            place = int(rates.argmax())
            fail(
                call,
                f"prior[{place}] = {rates[place]} is no probability; with per_batch=True, give the "
                "probability that a batch holds the item",
            )
        return rates
    rates = rates / rates.max()  # so that the sum does not overflow
    return np.asarray(rates / rates.sum(), dtype=np.float64)


def _tensor(array: npt.NDArray[Any], device: Any) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    return tensor if device is None else tensor.to(device)
