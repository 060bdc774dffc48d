"""AdamW whose cost does not grow with the rows of an embedding that a step does not read.

A row that is not read stays as it is. Before it is read again the steps that it missed are made up
for in closed form, moments and weight decay included (``kernels.row_updates``), so what a step
reads is what dense AdamW would have left there, but for rounding: it is no "lazy Adam", in which
the moments of rows without a gradient stand still.

``RowAdam`` finds its rows because ``towers`` looks embeddings up through their ``RowTable``. In
evaluation mode a lookup gives up-to-date copies and changes nothing, so looking at a model during
training does not change what training gives.

Shapes: N rows of a table, D columns, n codes looked up, R distinct rows among them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastneg.checks import IntArray, frozen
from fastneg.errors import FastnegError
from fastneg.kernels import row_updates as kernels
from fastneg.kernels.scan import codes_within
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.row_state import LAST_STEP, check_tables
from fastneg.training.settings import Settings
from fastneg.training.team import OnTeam
from fastneg.training.towers import TwoTower

# Steps after a gradient until what is left of its first moment, 0.9^600, moves no weight.
_FADED = 600
_ROWS = 256  # that a thread takes at a time
_bring, _read = OnTeam(kernels.bring_up_to_date), OnTeam(kernels.read_rows)
_update = OnTeam(kernels.update_rows)
_UNKNOWN = -1  # the code of no row


_Arrays = tuple[Any, Any, Any]  # a table [N, D] and its moments


class _Numbers(NamedTuple):
    """Codes [n] of a lookup, the distinct ``rows`` [R], and which of these each code is."""

    rows: IntArray
    places: IntArray
    codes: IntArray


class RowTable:
    """An embedding's rows: lookups bring them up to date, gradients come back to them.

    Args:
        weight: float32 [N, D], contiguous, on the CPU.
        clock: how far rows that are behind have to go; common to the tables of an optimizer.
    """

    def __init__(self, weight: Tensor, clock: Clock) -> None:
        self.weight, self.clock = weight, clock
        self.bind(
            torch.zeros_like(weight), torch.zeros_like(weight), np.zeros(len(weight), np.int64)
        )
        self._slots = np.full(len(weight), -1, np.int32)
        self._read: list[tuple[_Numbers, Tensor]] = []

    def bind(self, first: Tensor, second: Tensor, reached: IntArray) -> None:
        """Take these moments [N, D], and the steps [N] that rows are brought to."""
        self.first, self.second, self.reached = first, second, reached
        self._arrays: _Arrays = (self.weight.detach().numpy(), first.numpy(), second.numpy())

    def lookup(self, codes: Tensor) -> Tensor:
        """Float32 [..., D] with gradient: the rows of int64 codes [...], zeros for -1."""
        flat = self._checked(codes)
        numbers = self._number(flat.numpy())
        self._bring(self._arrays, self.reached, numbers.rows)
        vectors: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
            self.weight, flat, self, numbers
        )
        return vectors.view(*codes.shape, self.weight.shape[1])

    @torch.no_grad()
    def read(self, codes: Tensor) -> Tensor:
        """The same without gradient: the table stays as it is."""
        flat, clock = self._checked(codes).numpy(), self.clock
        vectors = self.weight.new_empty(len(flat), self.weight.shape[1])
        out = vectors.numpy()
        _read(
            *self._arrays, self.reached, flat, clock.step, clock.distance, clock.spread,
            clock.kept, clock.powers, clock.epsilon, out,
            start=0, stop=len(flat), chunk=_ROWS,
        )  # fmt: skip
        return vectors.view(*codes.shape, self.weight.shape[1])

    def _checked(self, codes: Tensor) -> Tensor:
        """A copy of the codes, int64 [n] within -1..N-1, for kernels that check nothing.

        Raises:
            IndexError: others, as from ``torch.nn.Embedding``.
        """
        flat = codes.detach().reshape(-1).to(torch.int64, copy=True)
        if not codes_within(frozen(flat.numpy()), _UNKNOWN, len(self.reached)):
            raise IndexError(f"an embedding of {len(self.reached)} rows has no row of such a code")
        return flat

    def settle(self) -> None:
        """Bring every row up to date."""
        self._bring(self._arrays, self.reached, np.arange(len(self.weight), dtype=np.int64))

    def receive(self, numbers: _Numbers, gradients: Tensor) -> None:
        """The gradients float32 [n, D] of a lookup; kept until the step."""
        self._read.append((numbers, gradients))

    def forget(self) -> None:
        """Drop the gradients that are kept."""
        self._read.clear()

    def step(self, numbers: npt.NDArray[np.float32]) -> None:
        """One step for the rows that have gradients; ``numbers`` as ``update_rows`` takes them."""
        if self.weight.grad is not None:
            raise FastnegError("RowAdam: an embedding was read past its lookup; give gradients")
        if not self._read:
            return
        rows, places, _ = self._read[0][0]
        if len(self._read) > 1:
            rows, places, _ = self._number(np.concatenate([one.codes for one, _ in self._read]))
        sums = np.zeros((len(rows), self.weight.shape[1]), np.float32)
        done = 0
        for one, gradients in self._read:
            part = places[done : done + len(one.codes)]
            kernels.add_gradients(gradients.contiguous().numpy(), part, sums)
            done += len(part)
        _update(
            *self._arrays, self.reached, rows, sums, self.clock.step, numbers,
            start=0, stop=len(rows), chunk=_ROWS,
        )  # fmt: skip
        self.forget()

    def _number(self, codes: IntArray) -> _Numbers:
        rows, places = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
        count = kernels.number_codes(np.ascontiguousarray(codes), self._slots, rows, places)
        return _Numbers(rows[:count], places, codes)

    def _bring(self, arrays: _Arrays, reached: IntArray, rows: IntArray) -> None:
        clock = self.clock
        if clock.step == 0:
            return
        _bring(
            *arrays, reached, rows, clock.step, clock.distance, clock.spread, clock.kept,
            clock.powers, clock.epsilon,
            start=0, stop=len(rows), chunk=_ROWS,
        )  # fmt: skip


class _Lookup(torch.autograd.Function):
    """Rows of a table; their gradients go to the table and nowhere else."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, codes: Tensor, table: RowTable, numbers: _Numbers
    ) -> Tensor:
        ctx.numbers, ctx.table = numbers, table
        if len(codes) and int(codes.min()) >= 0:
            return weight.index_select(0, codes)
        vectors = weight.index_select(0, codes.clamp(min=0))
        return vectors.masked_fill_((codes < 0)[:, None], 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        ctx.table.receive(ctx.numbers, gradients[0])
        return None, None, None, None


class Clock:
    """The steps done, and how far a row goes without gradients since any of them.

    Args:
        rate, betas, epsilon, weight_decay: of AdamW.
    """

    def __init__(
        self, rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float
    ) -> None:
        self.rate, self.betas, self.epsilon = rate, betas, np.float32(epsilon)
        self.left = 1.0 - rate * weight_decay  # of a weight, after a step
        missed = np.arange(_FADED, 0.0, -1.0)
        self._fading = rate * betas[0] ** missed  # w_j but for its denominator, the oldest first
        self._over_fading = self._fading / betas[1] ** (missed / 2.0)
        self.restart()

    def restart(self, step: int = 0) -> None:
        """Go to a number of steps done: the tables are those of having gone there step by step."""
        self.step = 0
        self.distance, self._over = np.zeros(1), np.zeros(1)  # sums of w_j and of w_j / r_j
        self.spread = np.ones(1)
        self.kept, self.powers = np.ones((1, 3)), np.ones(1)
        for _ in range(step):
            self.advance()

    def advance(self) -> None:
        """One more step is done."""
        self.step += 1
        step, (beta1, beta2) = self.step, self.betas
        self._make_room()
        kernels.count_step(
            self.distance, self._over, self.spread, step, self.left,
            self._fading, self._over_fading, 1.0 - beta1**step, math.sqrt(1.0 - beta2**step),
        )  # fmt: skip

    def _make_room(self) -> None:
        if self.step < len(self.powers):
            return
        size = max(1024, 2 * len(self.powers))
        grown = [np.zeros(size), np.zeros(size), np.ones(size)]
        for new, values in zip(grown, (self.distance, self._over, self.spread), strict=True):
            new[: len(values)] = values
        self.distance, self._over, self.spread = grown
        missed = np.arange(size, dtype=np.float64)
        fading = np.where(missed <= _FADED, self.betas[0] ** missed, 0.0)
        self.kept = np.stack([self.left**missed, fading, self.betas[1] ** missed], axis=1)
        self.powers = self.left ** np.maximum(0.0, missed - _FADED)

    def numbers(self) -> npt.NDArray[np.float32]:
        """What ``update_rows`` needs of the step that was last counted."""
        beta1, beta2 = self.betas
        rate = self.rate / (1.0 - beta1**self.step)
        root = 1.0 / math.sqrt(1.0 - beta2**self.step)
        values = (beta1, 1.0 - beta1, beta2, 1.0 - beta2, rate, root, self.left, self.epsilon)
        return np.array(values, dtype=np.float32)


class RowAdam(torch.optim.AdamW):
    """``torch.optim.AdamW`` for a model some of whose embeddings move by rows.

    Args:
        model: trained on the CPU, its embeddings in float32.
        embeddings: parts of the model that are read through their lookups alone; none: AdamW.
        lr, weight_decay: of AdamW.
        fused: as for AdamW, for the other parameters.

    ``weight_decay`` pulls every parameter towards 0 but those in the model's ``not_decayed``:
    0 is an empty embedding and a layer that does nothing, but the logarithm of a temperature of 1.
    """

    def __init__(
        self,
        model: nn.Module,
        embeddings: Iterable[nn.Embedding] = (),
        *,
        lr: float,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        kept = {id(one) for one in getattr(model, "not_decayed", ())}
        groups: list[dict[str, Any]] = [
            {"params": [one for one in model.parameters() if id(one) not in kept]}
        ]
        if kept:
            still = [one for one in model.parameters() if id(one) in kept]
            groups.append({"params": still, "weight_decay": 0.0})
        super().__init__(groups, lr=lr, weight_decay=weight_decay, fused=fused)
        group = self.param_groups[0]
        self._clock = Clock(lr, group["betas"], group["eps"], weight_decay)
        self._embeddings = list(embeddings)
        self._tables = [RowTable(one.weight, self._clock) for one in self._embeddings]
        for embedding, table in zip(self._embeddings, self._tables, strict=True):
            embedding.rows = table  # type: ignore[assignment]
            self._show(table)
        moved = {id(table.weight) for table in self._tables}
        self._others = any(id(one) not in moved for one in self._parameters())

    def _parameters(self) -> list[Tensor]:
        """All of them, in the order of a state's numbers."""
        return [one for group in self.param_groups for one in group["params"]]

    def _show(self, table: RowTable) -> None:
        """Put a table's state where ``state_dict`` finds it."""
        self.state[table.weight] = {
            "step": torch.tensor(float(self._clock.step)),
            "exp_avg": table.first,
            "exp_avg_sq": table.second,
            LAST_STEP: torch.from_numpy(table.reached),
        }

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of AdamW; rows without a gradient are made up for when they are next read."""
        if self._others or not self._tables:
            super().step(closure)
        self._clock.advance()
        numbers = self._clock.numbers() if self._tables else None
        for table in self._tables:
            assert numbers is not None
            table.step(numbers)
            self.state[table.weight]["step"].fill_(float(self._clock.step))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        if self._others or not self._tables or not set_to_none:
            super().zero_grad(set_to_none)
        else:  # torch's own takes a tenth of a millisecond to find that there is none
            for table in self._tables:
                table.weight.grad = None
        for table in self._tables:
            table.forget()

    def settle(self) -> None:
        """Bring every row of every table up to date: the weights are then those of AdamW."""
        for table in self._tables:
            table.settle()

    def release(self) -> None:
        """Leave the model: up to date, its embeddings as they were before."""
        self.settle()
        for embedding in self._embeddings:
            del embedding.rows
        self._embeddings, self._tables = [], []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict()``; see ``torch.optim.Optimizer``.

        Also from one in which other embeddings moved by rows: rows that were left behind and move
        with all others from now on are brought up to date, and rows that moved with all others are.

        Raises:
            CheckpointError: what is kept of a table that moves by rows does not fit it; nothing
                changes then.
        """
        parameters = self._parameters()
        check_tables(parameters, {id(table.weight) for table in self._tables}, state_dict["state"])
        entries = copy.copy(state_dict["state"])
        reached: dict[int, IntArray] = {}
        for number, one in enumerate(parameters):
            if LAST_STEP in entries.get(number, ()):
                entries[number] = dict(entries[number])
                # torch makes every state of a float parameter a float: this one has to stay whole
                reached[id(one)] = entries[number].pop(LAST_STEP).numpy().copy()
        super().load_state_dict({**state_dict, "state": entries})
        tables = {id(table.weight): table for table in self._tables}
        moved = [one for one in parameters if id(one) in tables or id(one) in reached]
        if moved:
            self._clock.restart(int(self.state[moved[0]]["step"]))
        for one in moved:
            state, table = self.state[one], tables.get(id(one))
            last = reached.get(id(one), np.full(len(one), self._clock.step, np.int64))
            if table is None:
                table = RowTable(one, self._clock)
                table.bind(state["exp_avg"], state["exp_avg_sq"], last)
                table.settle()
            else:
                table.bind(state["exp_avg"].clone(), state["exp_avg_sq"].clone(), last)
                self._show(table)


def make_optimizer(
    model: TwoTower, settings: Settings, device: torch.device, *, ranks: Ranks = ALONE
) -> RowAdam:
    """AdamW by the settings: by rows where that saves something and is possible.

    That is on the CPU, in float32, in one process, unless every item is read in every step
    (``full_softmax``), or many are: the table that a history averages.
    """
    embeddings: list[nn.Embedding] = []
    alone = device.type == "cpu" and ranks.size == 1
    if settings.row_updates and alone and settings.loss != "full_softmax":
        history = model.user_tower.history
        every = [*model.user_tower.looked_up(), *model.item_tower.looked_up()]
        embeddings = [
            one
            for one in every
            if one.weight.dtype == torch.float32 and (history is None or not history.reads(one))
        ]
    return RowAdam(
        model,
        embeddings,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
