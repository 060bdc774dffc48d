"""From settings to negatives and a loss: which samplers feed a batch, which columns a row sees.

==================  ==========================================================================
``in_batch``        the other rows' positives; Q is their frequency as the loader serves them.
``mixed``           those and B' uniform items; Q* = (B Q + B' / N) / (B + B').
``sampled_softmax`` K negatives per row that exclude the user's positives, or K for the batch.
``nce``, ``hinge``, the same: per row or for the batch.
``ccl``, ``bsl``
``bpr``, ``bce``,   K negatives per row.
``gbce``
``full_softmax``    every item of the catalog.
==================  ==========================================================================

Instead of these, a list of ``negatives`` says which sources feed a batch
(``training.negative_list``); mined lists are one of them.

What a whole batch shares is masked by all known positives of each row's user.

With several ranks and ``gather_negatives`` every row sees the columns of the whole batch, so that
losses and gradients are one process's, whatever the number of ranks. Without it a rank's columns
are those of its own slice of the batch (B and Q* = (B Q + B' / N) / (B + B') are the slice's), and
the loss is the mean over the slices' rows.

Mined hard negatives come in two ways. Where negatives are per row, a slot holds a hard one in
1 / (1 + easy_to_hard) of the draws (fixed quotas, ``MixedSampler``), and log_q is the mixture's, so
corrected softmax losses stay estimates of the full softmax. Where columns are shared by the batch,
each row gets ``num_hard`` columns of its own besides; under a correction the easy columns stand for
the N items of the catalog, and the hard ones together weigh ``1 / easy_to_hard`` of that, however
many they are. (Without correction, and in ``hinge``, ``ccl`` and ``bsl``, every column counts
once, so the ratio is that of the columns.) ``nce``, ``gbce`` and ``full_softmax`` take no mined
ones.

Shapes: B rows, C columns shared by the batch, K negatives of a row, U users, N items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg.checks import as_codes, fail
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.frequency import FrequencyEstimator
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.subsampling import keep_probabilities
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batch_loss import BatchLoss
from fastneg.training.batch_vectors import own_first, whole_batches
from fastneg.training.batches import Batch, NegativeBatches
from fastneg.training.binary_losses import gbce_beta
from fastneg.training.data_defaults import batch_size_of
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.exponentials import KnownCells
from fastneg.training.full_softmax import check_full_softmax_memory
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.list_draws import list_draws, mined_sampler
from fastneg.training.list_loss import ListLoss
from fastneg.training.log_q import positive_mass
from fastneg.training.settings import Settings
from fastneg.training.settings_checks import NOT_MINED
from fastneg.training.source_data import NOTHING, SourceData
from fastneg.training.streaming_frequency import streaming_frequency
from fastneg.training.towers import TwoTower


def make_sampler(train: Interactions, settings: Settings) -> Sampler:
    """The sampler of easy negatives that the settings name."""
    excluding = settings.exclude_positives
    if settings.sampler == "uniform":
        catalog = train if excluding else train.num_items
        return UniformSampler(catalog, seed=settings.seed, name="easy")
    return PopularitySampler(
        train if excluding else train.item_user_counts,
        exponent=settings.exponent,
        smoothing=settings.smoothing,
        seed=settings.seed,
        name="easy",
    )


class Objective:
    """The batches of a stage, and the loss of one.

    Args:
        train: the interactions.
        settings: see ``Settings``.
        hard: mined lists, or None.
        data: what a list of negatives draws from besides.
        device: where the model is.
        stage: names the streams of words: another stage, other negatives.
        ranks: the processes that train together; all make the same objective.

    Raises:
        FastnegError: mined lists for a loss that takes none, or that do not fit; a catalog that
            is too large for ``full_softmax``, or too small for the negatives of ``gbce``; a queue
            on several ranks that do not gather.

    Attributes:
        batches: the ``NegativeBatches`` that serve this loss.
        source_counts: int64 [sources], per-row negatives by source since it was last zeroed.
        sums: what ``statistics`` is made of, to be zeroed after an epoch.
        memory: tensors that outlive a batch and belong to a checkpoint, changed in place.
        frequency: estimates Q of in-batch columns from the batches so far, or None.
        whole_batches: whether each of several ranks goes through the whole of every batch.
    """

    def __init__(
        self,
        train: Interactions,
        settings: Settings,
        *,
        hard: HardNegatives | None = None,
        data: SourceData = NOTHING,
        device: torch.device | str = "cpu",
        stage: str = "train",
        ranks: Ranks = ALONE,
    ) -> None:
        batch_size = batch_size_of(settings, train)
        settings = settings.replace(batch_size=batch_size)
        _check_data(train, settings, hard)
        _check_ranks(settings, ranks)
        gathers = ranks.size > 1 and settings.gather_negatives
        self._ranks, self.whole_batches = ranks, gathers and whole_batches(settings)
        self.train, self.settings = train, settings
        self.device = torch.device(device)
        self._stage = stage
        self._easy = easy = make_sampler(train, settings).spawn(stage)
        row_sampler: Sampler | None = None
        shared_sampler: Sampler | None = None
        num_negatives, num_shared = 1, 0
        num_hard = 0
        mined = None if hard is None else self.hard_sampler(hard)
        draws = list_draws(train, settings, stage=stage, data=data, mined=mined)
        if settings.per_row_negatives:
            row_sampler, num_negatives = easy if mined is None else mined, settings.num_negatives
        elif not settings.negatives:
            if settings.loss == "mixed":
                uniform = UniformSampler(train, seed=settings.seed, name="uniform")
                shared_sampler, num_shared = uniform.spawn(stage), settings.num_uniform
            elif settings.shared:
                shared_sampler, num_shared = easy, settings.num_negatives
            if mined is not None:
                row_sampler, num_hard = mined, settings.num_hard
                num_negatives = num_hard
        self.batches = NegativeBatches(
            train,
            batch_size=batch_size,
            sampler=row_sampler,
            num_negatives=num_negatives,
            log_q=settings.loss in ("sampled_softmax", "nce"),
            shared_sampler=shared_sampler,
            num_shared=num_shared,
            draws=tuple(draws.values()),
            rewards=settings.rewards,
            user_balance=settings.user_balance,
            seed=settings.seed,
            name=f"{stage}/batches",
            together=16,
            exhausted=settings.exhausted,
        )
        if settings.subsample_positives is not None:  # before the tables: Q is of what is served
            keep = keep_probabilities(
                train, settings.subsample_positives, formula=settings.subsample_formula
            )
            self.batches.subsample(keep, weights=settings.subsample_weights)
        if not self.whole_batches:
            self.batches.split(ranks)
        self.frequency: FrequencyEstimator | None = None
        if settings.item_frequency == "streaming":
            self.frequency = streaming_frequency(self.batches.item_log_frequency(), settings)
        self._item_log_q_N, self._user_mass_U = self._log_q_tables(easy)
        # Q_p of each row is then needed by the one correction that is conditional on "not p"
        self._may_draw_positive = (
            row_sampler is not None
            and settings.per_row_negatives
            and not settings.exclude_positives
            and (settings.loss, settings.correction) == ("sampled_softmax", "revised")
        )
        self._source_names = () if row_sampler is None else row_sampler.source_names
        self.source_counts = torch.zeros(len(self._source_names), dtype=torch.int64)
        self._loss = BatchLoss(
            settings,
            num_items=train.num_items,
            num_hard=num_hard,
            item_log_q_N=self._item_log_q_N,
            user_mass_U=self._user_mass_U,
            device=self.device,
        )
        self._list_loss: ListLoss | None = None
        self.memory: dict[str, Tensor] = {}
        self.sums = {"sources": self.source_counts}
        if settings.negatives:
            self._list_loss = ListLoss(
                train,
                settings,
                drawn=tuple(draws),
                item_log_q_N=self.batches.item_log_frequency(),
                device=self.device,
                stage=stage,
            )
            self.memory = self._list_loss.memory
            self.sums["by_source"] = self._list_loss.statistics.sums
        if gathers:
            (self._list_loss or self._loss).ranks = ranks

    def hard_sampler(self, hard: HardNegatives) -> Sampler:
        """The sampler of a row's negatives for mined lists: the stage's streams, other lists.

        Raises:
            FastnegError: ids that are no items, or not one row per user.
        """
        train, settings = self.train, self.settings
        lists, call, name = hard.lists, "Objective", "hard.lists"
        as_codes(lists, train.num_items, call=call, name=name, ndim=2, unknown=True)
        if len(lists) != train.num_users:
            fail(
                call,
                f"{name} has {len(lists)} rows for {train.num_users} users; give one row per user",
            )
        if settings.negatives:
            return mined_sampler(train, settings, hard, stage=self._stage)
        if not settings.per_row_negatives:
            return ListedSampler(
                lists, fallback=self._easy, interactions=train, seed=settings.seed, name="hard"
            ).spawn(self._stage)
        # a user without a list draws easy ones only: the mixture sees to that. It excludes what any
        # of its parts knows, and mined lists hold no positives in any case.
        known = train if settings.exclude_positives else None
        listed = ListedSampler(lists, interactions=known, num_items=train.num_items, name="hard")
        return MixedSampler(
            [(self._easy, settings.easy_to_hard), (listed, 1.0)], mode="quota", seed=settings.seed
        ).spawn(self._stage)

    def use(self, sampler: Sampler) -> None:
        """Draw from other lists, from the next iteration of ``batches`` on.

        Args:
            sampler: from ``hard_sampler``, in an objective that has mined lists.
        """
        if self._list_loss is None:
            self.batches.sampler = sampler
            return
        draws = self.batches.draws
        place = self._list_loss.drawn.index("mined")
        draws[place] = draws[place]._replace(sampler=sampler)

    def _log_q_tables(self, easy: Sampler) -> tuple[Tensor | None, Tensor | None]:
        """Log Q [N] of one shared column, and the Q-mass [U] of each user's positives."""
        settings, train = self.settings, self.train
        if settings.negatives or self.frequency is not None:
            return None, None
        corrected = settings.loss in ("in_batch", "mixed", "sampled_softmax")
        if settings.loss != "nce" and not (corrected and settings.correction != "none"):
            return None, None
        if settings.loss in ("in_batch", "mixed"):
            log_q_N = self.batches.item_log_frequency()
        else:
            log_q_N = easy.log_q(np.arange(train.num_items))
        mass_U = None
        # Mixed columns are not alike, per-row ones exclude the positives already: no mass there.
        if settings.loss == "in_batch" or (corrected and settings.shared):
            mass_U = positive_mass(train, log_q_N).to(self.device)
        return log_q_N.to(self.device), mass_U

    # One batch -----------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> Batch:
        """The batch with all that its loss needs and no model does: known positives, log Q.

        ``loss`` does without, but training is sooner done where this is done beside it. Any thread
        may do it. A mask of the whole catalog is left to ``loss``, so that there is one at a time.
        """
        return batch if self.settings.loss == "full_softmax" else self._with_known(batch)

    def _with_known(self, batch: Batch) -> Batch:
        if self._may_draw_positive and batch.mass is None and len(batch.users):
            assert self.batches.sampler is not None
            log_q_B = self.batches.sampler.log_q(batch.items, batch.users)
            return batch._replace(mass=log_q_B.double().exp())
        columns_C = self._shared_columns(batch)
        if columns_C is None or not len(batch.users):
            return batch
        if self.device.type == "cpu" and self.frequency is None:
            batch = self._loss.with_log_q(batch)
        if self._loss.fuses:
            found = self.train.positive_cells(batch.users, columns_C)
            return batch._replace(known=KnownCells(*found))
        return batch._replace(known=self.train.positive_mask(batch.users, columns_C))

    def _shared_columns(self, batch: Batch) -> Tensor | None:
        """The items [C] that all rows of a batch see; None where a list says which, or none."""
        if self._list_loss is not None or self.settings.per_row_negatives:
            return None
        columns = [] if batch.shared is None else [batch.shared.items]
        if self.settings.loss in ("in_batch", "mixed"):
            columns.insert(0, own_first(batch, self._loss.ranks))
        elif self.settings.loss == "full_softmax":
            columns = [torch.arange(self.train.num_items)]
        return columns[0] if len(columns) == 1 else torch.cat(columns)

    def loss(self, model: TwoTower, batch: Batch) -> Tensor:
        """The loss of a batch (on the CPU, as served), a scalar with gradient.

        With several ranks this one's part: the sum over ranks is the loss.
        """
        ranks = self._ranks
        if batch.negatives is not None and len(self._source_names) > 1:
            tags = batch.negatives.source.flatten().long()
            counts = torch.bincount(tags, minlength=len(self._source_names))
            self.source_counts += counts if self.whole_batches else ranks.sum(counts)
        if self.frequency is not None:
            self.frequency.update(batch.items if batch.every is None else batch.every)
        if not len(batch.users):
            return self._loss.of_no_rows(model, batch.to(self.device))
        loss = self._of_rows(model, batch)
        if ranks.size == 1:
            return loss
        return (1.0 / ranks.size if self.whole_batches else batch.share) * loss

    def _of_rows(self, model: TwoTower, batch: Batch) -> Tensor:
        if self._list_loss is not None:
            return self._list_loss.of_batch(model, batch, epoch=self.batches.epoch)
        if self.settings.per_row_negatives:
            if self._may_draw_positive:
                batch = self._with_known(batch)
            return self._loss(model, batch.to(self.device), None)
        if batch.known is None:
            batch = self._with_known(batch)
        if self.frequency is not None:
            log_q_C = self.frequency.log_q(self._shared_columns(batch))
            batch = self._loss.with_log_q(batch.to(self.device), log_q_C.to(self.device))
        known = batch.known
        if isinstance(known, Tensor):
            known = known.to(self.device)
        return self._loss(model, batch.to(self.device), known)

    def statistics(self) -> dict[str, Any]:
        """The sources of a list (see ``list_statistics``), or ``source_counts`` by name.

        Empty where there is no list and one source.
        """
        if self._list_loss is not None:
            return {"sources": self._list_loss.statistics.report()}
        if len(self._source_names) < 2:
            return {}
        return {
            "negatives": dict(zip(self._source_names, self.source_counts.tolist(), strict=True))
        }


def _check_ranks(settings: Settings, ranks: Ranks) -> None:
    """What cannot be done by several processes."""
    queue = any(one["source"] == "queue" for one in settings.negatives)
    if ranks.size > 1 and queue and not settings.gather_negatives:
        fail(
            "Objective",
            f"each of {ranks.size} ranks would have a queue of its own, which no checkpoint holds; "
            "a source 'queue' goes with gather_negatives = true",
        )


def _check_data(train: Interactions, settings: Settings, hard: HardNegatives | None) -> None:
    """What a loss asks of the catalog and of mined lists."""
    call, loss = "Objective", settings.loss
    if hard is not None and loss in NOT_MINED:
        fail(call, f"there are mined lists, but {NOT_MINED[loss]}")
    if loss == "gbce":
        gbce_beta(settings.num_negatives, train.num_items, settings.calibration)
    if loss == "full_softmax":
        rows = min(batch_size_of(settings, train), len(train.positive_rows))
        check_full_softmax_memory(call, rows, train.num_items, settings.memory_budget)
