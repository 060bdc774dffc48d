"""Batches of examples with fresh negatives, fast without a single DataLoader worker.

An example is a positive row of the interactions; its number among them is its global index. An
epoch's order is a permutation that (seed, name, epoch) decides, a batch is a slice of it, and its
negatives are a sampler's with the global indices as ``rows=``: they do not depend on the batch
size, on how many batches are drawn for together, on threads, workers or ranks. With ``subsample``
an epoch serves a subset of the examples, which (seed, name, epoch, global index) decide. With
``split`` each of several ranks serves its slice of every batch.

Shapes: B rows of a batch, K negatives of a row, C items shared by a batch.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fastneg.checks import FloatArray, IntArray, as_choice, as_flag, as_integer, as_number, fail
from fastneg.data.events import Events
from fastneg.errors import CheckpointError, ExhaustedUserError
from fastneg.interactions import Interactions
from fastneg.kernels.csr import gather_pairs
from fastneg.samplers.base import Sampler
from fastneg.samplers.known import same_catalog
from fastneg.samplers.results import Negatives
from fastneg.samplers.subsampling import importance_weights, kept_rows
from fastneg.streams import key_of, permutation, stream_of
from fastneg.training.batch import Batch, Draw, check_parts
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.feature_encoders import FeatureValues
from fastneg.training.log_q import as_keep, in_batch_log_q

__all__ = ["Batch", "Draw", "NegativeBatches"]

STATE_VERSION = 1
_ENOUGH = 262_144  # draws in one call
_CALL = "NegativeBatches"


class NegativeBatches(IterableDataset[Batch]):
    """Batches of positives with fresh negatives; iterate it, or give it to a DataLoader.

    ``DataLoader(batches, batch_size=None, num_workers=W)`` yields the same batches in the same
    order for every W: worker w makes batches w, w + W, w + 2W and so on. Workers under fork,
    spawn and forkserver work, persistent ones too.

    Args:
        interactions: its positive rows are the examples (``positive_rows``, in input order).
        batch_size: B; the last batch of an epoch may be smaller.
        sampler: draws the negatives of each row; None for none.
        num_negatives: K.
        log_q: False leaves log Q of these out.
        shared_sampler: draws one set for a whole batch; None for none.
        num_shared: C.
        draws: further sources, each row's own or shared.
        rewards: carry interaction weights as ``weights``.
        user_balance: a, 0 to 1; above 0 ``weights`` are n^-a, n being the examples of the row's
            user, scaled to a mean of 1 over the examples, times the reward if there are any.
        shuffle: False keeps the input order.
        seed, name: decide the order of examples.
        together: this many batches are drawn for in one call, or fewer where they are large: small
            calls cost more a draw. What is changed in a sampler is seen from the next call on.
            A DataLoader's workers and the slices of ranks are drawn for one by one.
        exhausted: ``"drop"`` leaves out rows of users for whom a sampler can draw nothing,
            counts them in ``num_dropped`` and warns once; ``"raise"`` raises.

    Raises:
        FastnegError: no positive row, or none left; a sampler over other users or items.
        ExhaustedUserError: with ``exhausted="raise"``.
    """

    def __init__(
        self,
        interactions: Interactions,
        *,
        batch_size: int = 2048,
        sampler: Sampler | None = None,
        num_negatives: int = 1,
        log_q: bool = True,
        shared_sampler: Sampler | None = None,
        num_shared: int = 0,
        draws: Sequence[Draw] = (),
        rewards: bool = False,
        user_balance: float = 0.0,
        shuffle: bool = True,
        seed: int = 0,
        name: str = "batches",
        together: int = 1,
        exhausted: str = "drop",
    ) -> None:
        super().__init__()
        check_parts(_CALL, interactions, sampler, shared_sampler, draws, name)
        self.batch_size = as_integer(batch_size, call=_CALL, name="batch_size", minimum=1)
        self.num_negatives = as_integer(num_negatives, call=_CALL, name="num_negatives", minimum=1)
        least = 0 if shared_sampler is None else 1
        self.num_shared = as_integer(num_shared, call=_CALL, name="num_shared", minimum=least)
        self.together = as_integer(together, call=_CALL, name="together", minimum=1)
        as_choice(exhausted, ("drop", "raise"), call=_CALL, name="exhausted")
        self.sampler, self.shared_sampler, self.draws = sampler, shared_sampler, list(draws)
        self.log_q = as_flag(log_q, call=_CALL, name="log_q")
        self.seed, self.name = as_integer(seed, call=_CALL, name="seed"), name
        self.shuffle = as_flag(shuffle, call=_CALL, name="shuffle")
        same_catalog(_CALL, interactions, sampler, shared_sampler, *(d.sampler for d in draws))
        self.num_items, self.fingerprint = interactions.num_items, interactions.fingerprint()
        positive_rows = interactions.positive_rows
        self._context: FeatureValues | None = None
        if isinstance(interactions, Events):
            context = interactions.context.select(positive_rows)
            self._context = FeatureValues(context, call=_CALL)
        # side by side: an order that leaps about reads one line of memory for both
        self._pairs = np.empty(len(positive_rows), dtype=[("user", np.int64), ("item", np.int64)])
        self._pairs["user"] = interactions.row_users[positive_rows]
        self._pairs["item"] = interactions.row_items[positive_rows]
        self._weights: np.ndarray[Any, np.dtype[np.float32]] | None = None
        if as_flag(rewards, call=_CALL, name="rewards"):
            weights = interactions.row_weights
            if weights is None:
                fail(_CALL, "rewards = True needs interactions with weights; these have none")
            self._weights = np.ascontiguousarray(weights[positive_rows], dtype=np.float32)
        balance = as_number(user_balance, call=_CALL, name="user_balance", minimum=0, maximum=1)
        if balance > 0 and len(self._pairs):
            users = self._pairs["user"]
            shares = np.bincount(users)[users].astype(np.float64) ** -balance
            shares /= shares.mean()
            rewarded = shares if self._weights is None else shares * self._weights
            self._weights = rewarded.astype(np.float32)
        if not len(self._pairs):
            fail(_CALL, "the interactions have no positive row (weight > 0), so no example")

        self._rows = self._rows_that_can_be_served(interactions.num_users, exhausted)
        self.num_dropped = len(self._pairs) - len(self._rows)
        self.ranks = ALONE
        self.keep: FloatArray | None = None
        self._importance: npt.NDArray[np.float32] | None = None
        self._kept: tuple[int, IntArray] | None = None  # an epoch's rows, found once
        # (epoch, next batch) in shared memory, so that persistent workers see set_epoch
        self._position: Tensor = torch.zeros(2, dtype=torch.int64)
        self._position.share_memory_()  # type: ignore[no-untyped-call]

    def _rows_that_can_be_served(
        self, num_users: int, exhausted: str
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        every = np.arange(len(self._pairs), dtype=np.int64)
        samplers = [] if self.sampler is None else [self.sampler]
        samplers += [draw.sampler for draw in self.draws if not draw.shared]
        users = np.empty(0, np.int64)
        for sampler in samplers:
            users = np.union1d(users, sampler.exhausted_users())
        if not len(users):
            return every
        hopeless = np.zeros(num_users, dtype=bool)
        hopeless[users] = True
        dropped: npt.NDArray[np.bool_] = hopeless[self._pairs["user"]]
        count = int(dropped.sum())
        if count == 0:
            return every
        some = ", ".join(str(int(user)) for user in users[:5]) + (", ..." if len(users) > 5 else "")
        if exhausted == "raise":
            raise ExhaustedUserError(
                f"{_CALL}: {len(users)} users have no item left to draw (codes {some}); "
                "exhausted='drop' leaves their rows out",
                [int(user) for user in users],
            )
        if count == len(every):
            raise ExhaustedUserError(
                f"{_CALL}: every user of the examples knows every item (codes {some}); "
                "there is no negative to draw",
                [int(user) for user in users],
            )
        warnings.warn(
            f"{count} of {len(every)} examples are left out: nothing can be drawn for "
            f"{len(users)} users (codes {some})",
            UserWarning,
            stacklevel=4,
        )
        return every[~dropped]

    def split(self, ranks: Ranks) -> None:
        """From now on serve this rank's slice of every batch; ``batch_size`` is that of all."""
        self.ranks = ranks

    def subsample(self, keep: Any, *, weights: bool = False) -> None:
        """From now on an epoch serves a row of item i with probability ``keep[i]``.

        Every epoch another subset, the one that ``samplers.subsampling.subsample_positives`` marks
        for this loader's seed and name. ``item_log_frequency`` follows. ``len`` is then another
        in every epoch: torch warns where a DataLoader was asked for its own in a shorter one.

        Args:
            keep: [N] probabilities, 0 to 1 (``samplers.subsampling.keep_probabilities``).
            weights: carry 1 / keep of each row in ``weights``, times its reward if there are any.

        Raises:
            FastnegError: no probabilities, or nothing that could ever be served.
        """
        call = f"{_CALL}.subsample"
        self.keep = as_keep(keep, self.num_items, call=call)
        if not self.keep[self._pairs["item"][self._rows]].any():
            fail(call, "keep is 0 for the items of all examples; nothing could be served")
        self._importance = importance_weights(self.keep) if weights else None
        self._kept = None

    def _rows_of(self, epoch: int) -> IntArray:
        """The examples of an epoch, in input order."""
        if self.keep is None:
            return self._rows
        if self._kept is None or self._kept[0] != epoch:
            items = np.ascontiguousarray(self._pairs["item"])
            mask = kept_rows(self.keep, items, seed=self.seed, epoch=epoch, name=self.name)
            rows = self._rows[mask[self._rows]]
            if not len(rows):
                fail(
                    _CALL,
                    f"subsampling keeps none of the {len(self._rows)} examples in epoch {epoch}; "
                    "a larger threshold keeps more",
                )
            self._kept = epoch, rows
        return self._kept[1]

    def _order(self, epoch: int) -> IntArray:
        """The examples of an epoch, in the order in which it serves them."""
        rows = self._rows_of(epoch)
        if not self.shuffle:
            return rows
        stream = stream_of(self.name, "order")
        return rows[permutation(key_of(self.seed, stream, epoch), len(rows))]

    @property
    def num_examples(self) -> int:
        """Examples of the epoch that the next iteration serves, without the dropped ones."""
        return len(self._rows_of(self.epoch))

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration serves."""
        return int(self._position[0])

    def __len__(self) -> int:
        """Batches of a whole epoch, the one that the next iteration serves."""
        return self._num_batches(self.epoch)

    def _num_batches(self, epoch: int) -> int:
        return math.ceil(len(self._rows_of(epoch)) / self.batch_size)

    def item_log_frequency(self) -> Tensor:
        """float32 [num_items]: log of each item's share of the examples that this loader serves.

        The Q of in-batch negatives, over all epochs where they are subsampled. Items that are
        never served have -inf.
        """
        counts = np.bincount(self._pairs["item"][self._rows], minlength=self.num_items)
        return in_batch_log_q(counts, keep=self.keep)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch: its own order, its own negatives."""
        self._position[0] = as_integer(epoch, call=f"{_CALL}.set_epoch", name="epoch", minimum=0)
        self._position[1] = 0

    def state_dict(self, next_batch: int | None = None) -> dict[str, Any]:
        """Where the iteration stands, JSON-able.

        Args:
            next_batch: the first batch not consumed yet. Needed only where DataLoader workers
                iterate (they run ahead, and only the consumer knows); by default the batches that
                this object yielded itself are counted.
        """
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "next_batch": int(self._position[1]) if next_batch is None else int(next_batch),
            "batch_size": self.batch_size,
            "num_examples": len(self._rows),
            "subsample": self._subsample_identity(),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "name": self.name,
            "fingerprint": self.fingerprint,
        }

    def _subsample_identity(self) -> str | None:
        if self.keep is None:
            return None
        digest = hashlib.blake2b(self.keep.tobytes(), digest_size=8).hexdigest()
        return digest if self._importance is None else f"{digest} weighted"

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, in the middle of an epoch too.

        Raises:
            CheckpointError: the state is of another version, of other data or other settings.
        """
        for name, mine in self.state_dict().items():
            if name in ("epoch", "next_batch"):
                continue
            if state.get(name) != mine:
                raise CheckpointError(
                    f"{_CALL}.load_state_dict: the state's {name} is {state.get(name)!r}, "
                    f"here it is {mine!r}; resume with the data and settings it was taken with"
                )
        num_batches = self._num_batches(state["epoch"])
        if not 0 <= state["next_batch"] <= num_batches:
            raise CheckpointError(
                f"{_CALL}.load_state_dict: next_batch = {state['next_batch']} of {num_batches}"
            )
        self._position[0] = state["epoch"]
        self._position[1] = state["next_batch"]

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch; then the position is at its start again."""
        epoch, first = int(self._position[0]), int(self._position[1])
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        for sampler in (self.sampler, self.shared_sampler, *(one.sampler for one in self.draws)):
            if sampler is not None:
                sampler.set_epoch(epoch)
        order = self._order(epoch)
        numbers = range(first + worker, self._num_batches(epoch), num_workers)
        # what is sent elsewhere, or cut into the slices of ranks, is made one by one
        together = self._drawn_together() if info is None and self.ranks.size == 1 else 1
        for start in range(0, len(numbers), together):
            some = numbers[start : start + together]
            for number, batch in zip(some, self._batches(order, some), strict=True):
                if info is None:
                    self._position[1] = number + 1
                yield batch
        if info is None and self.epoch == epoch:
            self._position[1] = 0

    def _drawn_together(self) -> int:
        """``together``, or fewer where the draws of a batch are many."""
        own = [draw.num_negatives for draw in self.draws if not draw.shared]
        own += [] if self.sampler is None else [self.num_negatives]
        shared = [draw.num_negatives for draw in self.draws if draw.shared]
        shared += [] if self.shared_sampler is None else [self.num_shared]
        most = max(self.batch_size * max(own, default=1), *shared, 1)
        return max(1, min(self.together, _ENOUGH // most))

    def _batches(self, order: IntArray, numbers: range) -> list[Batch]:
        """Some batches in a row (or one): parts of what is read and drawn for all of them."""
        size = self.batch_size
        all_rows = order[numbers[0] * size : (numbers[-1] + 1) * size]
        rows = all_rows[slice(*self.ranks.bounds(len(all_rows)))]
        read = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        gather_pairs(self._pairs.view(np.int64), rows, *read)
        users, items = map(torch.from_numpy, read)
        weights = self._weights_of(rows)
        every, share = None, 1.0
        if self.ranks.size > 1:
            every = torch.from_numpy(self._pairs["item"][all_rows])
            share = len(rows) / len(all_rows)
            if weights is not None:
                share = float(weights.double().sum() / self._weights_of(all_rows).double().sum())
        own = None
        if self.sampler is not None:
            own = self.sampler.sample(users, self.num_negatives, rows=rows, log_q=self.log_q)
        drawn = [None if one.shared else one.of_rows(users, items, rows) for one in self.draws]
        made = []
        for k, number in enumerate(numbers):
            part = slice(k * size, (k + 1) * size)
            rows_B = torch.from_numpy(rows[part])
            made.append(
                Batch(
                    users[part],
                    items[part],
                    rows_B,
                    None if weights is None else weights[part],
                    None if own is None else own.part(part),
                    self._shared(number),
                    tuple(
                        draw.of_batch(number) if of_all is None else of_all.part(part)
                        for draw, of_all in zip(self.draws, drawn, strict=True)
                    ),
                    None if self._context is None else self._context.take(rows_B),
                    every,
                    share,
                )
            )
        return made

    def _shared(self, number: int) -> Negatives | None:
        if self.shared_sampler is None:
            return None
        return self.shared_sampler.sample_shared(self.num_shared, row=number)

    def _weights_of(self, rows: IntArray) -> Any:
        """float32 [B], or None."""
        weights = None if self._weights is None else torch.from_numpy(self._weights[rows])
        if self._importance is not None:
            importance = torch.from_numpy(self._importance[self._pairs["item"][rows]])
            weights = importance if weights is None else weights * importance
        return weights
