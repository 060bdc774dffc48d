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
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fastneg import checks
from fastneg.checks import FloatArray, IntArray, as_choice, as_flag, as_integer, as_number, fail
from fastneg.data.events import Events
from fastneg.errors import CheckpointError
from fastneg.interactions import Interactions
from fastneg.kernels.csr import gather_pairs
from fastneg.samplers.base import Sampler
from fastneg.samplers.known import same_catalog
from fastneg.samplers.results import Negatives
from fastneg.samplers.stream import MAX_EPOCH
from fastneg.samplers.subsampling import importance_weights, kept_rows
from fastneg.streams import key_of, permutation, stream_of
from fastneg.training.batch import Batch, Draw, check_parts
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.feature_encoders import FeatureValues
from fastneg.training.log_q import as_keep, in_batch_log_q
from fastneg.training.position import Position
from fastneg.training.servable import servable_rows

__all__ = ["Batch", "Draw", "NegativeBatches"]

STATE_VERSION = 2
_ENOUGH = 262_144  # draws in one call
_CALL = "NegativeBatches"


class NegativeBatches(IterableDataset[Batch]):
    """Batches of positives with fresh negatives; iterate it, or give it to a DataLoader.

    ``DataLoader(batches, batch_size=None, num_workers=W)`` yields the same batches in the same
    order for every W: worker w makes batches w, w + W, w + 2W and so on. Workers under fork,
    spawn and forkserver work, persistent ones too. Every iteration serves another epoch: the one
    after the last, or the one that ``set_epoch`` or ``load_state_dict`` said.

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

        own = [] if sampler is None else [sampler]
        own += [draw.sampler for draw in self.draws if not draw.shared]
        self._rows = servable_rows(
            self._pairs["user"], interactions.num_users, own, exhausted, call=_CALL
        )
        self.num_dropped = len(self._pairs) - len(self._rows)
        self.ranks = ALONE
        self.keep: FloatArray | None = None
        self._importance: npt.NDArray[np.float32] | None = None
        self._kept: tuple[int, IntArray] | None = None  # an epoch's rows, found once
        self._position = Position()

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
        weights = as_flag(weights, call=call, name="weights")
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
        """Examples of ``epoch``, without the dropped ones."""
        return len(self._rows_of(self.epoch))

    @property
    def epoch(self) -> int:
        """The epoch that is served, or was served last, or was set since."""
        return self._position.place()[0]

    def __len__(self) -> int:
        """Batches of a whole epoch: of ``epoch``."""
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
        """Go to the start of an epoch: its own order, its own negatives.

        The next iteration serves it. A DataLoader's workers that are at work already go on with
        its batches, after those that they have made ahead; an iteration in this process that has
        not served a batch yet serves it too, and one that has ends its own epoch. (Lightning starts
        workers before ``on_train_epoch_start``: docs/training.md says what to do there.)
        """
        call = f"{_CALL}.set_epoch"
        self._position.set(as_integer(epoch, call=call, name="epoch", minimum=0, maximum=MAX_EPOCH))

    def state_dict(self, next_batch: int | None = None) -> dict[str, Any]:
        """Where the iteration stands, and what its batches depend on; JSON-able.

        Args:
            next_batch: the first batch not consumed yet. Needed only where DataLoader workers
                iterate (they run ahead, and only the consumer knows); by default the batches that
                this object yielded itself are counted.
        """
        epoch, served = self._position.place()
        weights = None if self._weights is None else _digest(self._weights.tobytes())
        own, shared = self.sampler, self.shared_sampler
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            "next_batch": served if next_batch is None else int(next_batch),
            "batch_size": self.batch_size,
            "num_examples": len(self._rows),
            "subsample": self._subsample_identity(),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "weights": weights,
            "sampler": None if own is None else own.fingerprint(),
            "num_negatives": None if own is None else self.num_negatives,
            "shared_sampler": None if shared is None else shared.fingerprint(),
            "num_shared": None if shared is None else self.num_shared,
            "draws": [[draw.sampler.fingerprint(), *draw[1:]] for draw in self.draws],
        }

    def _subsample_identity(self) -> str | None:
        if self.keep is None:
            return None
        digest = _digest(self.keep.tobytes())
        return digest if self._importance is None else f"{digest} weighted"

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, in the middle of an epoch too.

        Raises:
            CheckpointError: the state is of another version, of other data or other settings.
        """
        call = f"{_CALL}.load_state_dict"
        mine = self.state_dict()
        if not isinstance(state, dict) or not {"epoch", "next_batch"} <= set(state):
            raise CheckpointError(f"{call}: not a loader's state; keys {sorted(mine)} expected")
        for name, value in mine.items():
            if name not in ("epoch", "next_batch") and not checks.is_entry(state.get(name), value):
                raise CheckpointError(
                    f"{call}: the state's {name} is {checks.shown(state.get(name))}, here it is "
                    f"{mine[name]!r}; resume with the data and settings it was taken with"
                )
        epoch = as_integer(state["epoch"], call=call, name="epoch", minimum=0, maximum=MAX_EPOCH)
        first = as_integer(state["next_batch"], call=call, name="next_batch", minimum=0)
        num_batches = self._num_batches(epoch)
        if first > num_batches:
            raise CheckpointError(f"{call}: next_batch = {checks.shown(first)} of {num_batches}")
        if first == num_batches:  # the end of an epoch is the start of the next
            epoch, first = epoch + 1, 0
        self._position.set(epoch, first)

    def __iter__(self) -> Iterator[Batch]:
        """A whole epoch: the one that was set, or the one after that of the last iteration.

        After ``load_state_dict`` the rest of its epoch. An iteration that was left early counts.
        """
        serving, info = self._position.begin(), get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        # what is sent elsewhere, or cut into the slices of ranks, is made one by one
        together = self._drawn_together() if info is None and self.ranks.size == 1 else 1
        order = self._order(serving.epoch)
        number = serving.first + worker
        while True:
            if info is not None:
                before, serving = serving, self._position.follow(serving)
                order = order if before.epoch == serving.epoch else self._order(serving.epoch)
            some = range(number, math.ceil(len(order) / self.batch_size), num_workers)[:together]
            if not some:
                return
            for sampler in self._samplers():  # other loaders may have set theirs meanwhile
                sampler.set_epoch(serving.epoch)
            for number, batch in zip(some, self._batches(order, some), strict=True):
                if info is None:
                    self._position.served(serving, number + 1)
                yield batch
            number += num_workers

    def _samplers(self) -> list[Sampler]:
        every = (self.sampler, self.shared_sampler, *(draw.sampler for draw in self.draws))
        return [sampler for sampler in every if sampler is not None]

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


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
