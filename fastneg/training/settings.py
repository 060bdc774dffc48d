"""Every setting of a training run in one frozen dataclass, checked when it is made.

``Settings()`` holds the defaults; a recipe changes some of them; ``--set key=value`` changes some
of those. An unknown key or a bad value ends in one line that says what would be right.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastneg.checks import shown
from fastneg.errors import FastnegTypeError, said_by
from fastneg.training.settings_checks import (
    CORRECTIONS,
    EXHAUSTED,
    FORMULAS,
    LOSSES,
    PER_ROW_LOSSES,
    SAMPLERS,
    SHARED_LOSSES,
    SIMILARITIES,
    SWAPS,
    check_settings,
)
from fastneg.training.settings_text import known_name, parse_assignments

__all__ = [
    "CORRECTIONS",
    "EXHAUSTED",
    "FORMULAS",
    "LOSSES",
    "PER_ROW_LOSSES",
    "SAMPLERS",
    "SHARED_LOSSES",
    "SIMILARITIES",
    "SWAPS",
    "Settings",
    "known",
    "parse_overrides",
    "setting_names",
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one training run.

    Towers:
        dim: width D of the vectors.
        hidden_layers: hidden layers of each tower's MLP, each half as wide as the one before it;
            0 is matrix factorisation (or, with features, a sum of embeddings).
        item_hidden_layers: those of the item tower; None: as many.
        history: ``"none"``, or the mean of the user's training items, the target of an example
            left out, is a part of the query tower: of the item tower's id embeddings
            (``"shared"``) or of a table of its own (``"own"``). See ``training.history``.
        history_length: the latest items of a user that count, or as many by the seed where there
            are no times; None: all.
        similarity: ``"dot"`` or ``"cosine"``.
        temperature: the losses divide scores by it, before any correction.
        learn_temperature: the logarithm of the temperature is a parameter, which starts at
            ``temperature`` and stays within ``temperature_bounds``; each epoch is logged.
        dropout: share of hidden units dropped while training.
        init_std: standard deviation of the start of the embeddings of ids (a history's own table
            among them); those of features start at 1 / sqrt(dim).
        use_user_ids, use_item_ids: False trains on features alone.

    Loss and negatives:
        loss: ``"in_batch"`` (the other rows' positives), ``"mixed"`` (those and ``num_uniform``
            uniform items; Yang et al. 2020), ``"sampled_softmax"``, ``"bpr"``, ``"bce"``,
            ``"nce"``, ``"hinge"``, ``"ccl"`` (cosine contrastive), ``"bsl"`` (bilateral softmax),
            ``"gbce"`` (uniform negatives only) or ``"full_softmax"`` (every item is scored). See
            ``training.losses`` and the files that it names.
        correction: the form of the logQ correction of the softmax losses (see
            ``training.losses``).
        rewards: weigh each row by its interaction weight.
        user_balance: a, 0 to 1: weigh each row by n^-a, n being its user's training rows (mean 1,
            times the reward): 0 counts every row alike, 1 every user, as the metrics do.
        sampler, exponent, smoothing: where sampled negatives come from; popularity is
            (users + smoothing)^exponent.
        num_negatives: K, per row, or per batch where ``shared``.
        exclude_positives: False draws each row's negatives from the whole catalog, the user's own
            positives included, as many a training loop does: to see what that costs.
        shared: one set of negatives for the whole batch (``sampled_softmax``, ``nce``, ``hinge``,
            ``ccl``, ``bsl``), in which each row's known positives are masked.
        num_uniform: B' of mixed negatives.
        margin: of ``hinge`` (0 or more) and ``ccl`` (-1 to 1), in units of the scores after the
            temperature.
        negative_weight: w of ``ccl`` and ``bsl``: a row's negatives together against its
            positive. In ``bsl``, other than 1 for cosines only.
        positive_temperature: of ``bsl``: tau_1, where ``temperature`` is tau_2, the negatives'.
        calibration: t of ``gbce``, 0 (plain binary cross-entropy) to 1.
        memory_budget: bytes that the scores of a batch may take with ``full_softmax``.
        exhausted: what becomes of rows of users for whom nothing can be drawn.
        item_frequency: Q of ``in_batch`` and ``mixed``: ``"counts"``, exact for what the loader
            serves, or ``"streaming"``, estimated from the batches so far (Yi et al. 2019; see
            ``training.streaming_frequency``).
        frequency_alpha: of ``"streaming"``: the weight of the newest gap; an item's estimate
            remembers its last 1 / alpha occurrences.
        frequency_prior: what that starts from: the ``"counts"``, ``"uniform"`` or ``"none"``.
        gather_negatives: with several processes, every row sees the columns of the whole batch;
            False: of its own process's slice (see ``training.negatives``).
        negatives: the sources of negatives, one table each, instead of what ``loss``, ``sampler``,
            ``num_negatives``, ``shared`` and ``num_uniform`` say of them (see
            ``training.negative_list``); empty: what these say.

    Positives (see ``samplers.subsampling``):
        subsample_positives: each epoch serves another subset of the positives, in which rows of
            frequent items are rarer; this is the threshold, a share of all events. None serves all
            of them. Q of in-batch negatives follows; masks and exclusions know every positive.
        subsample_formula: ``"program"`` (word2vec's) or ``"paper"``.
        subsample_weights: weigh each kept row by 1 / (its probability of being kept).

    Mined hard negatives:
        rounds: 1 trains once; n > 1 mines n - 1 times and trains again after each.
        window: ranks mined from, both inclusive.
        num_mined: hard negatives kept for each user.
        num_hard: hard columns of each row in the losses over a batch's shared columns.
        easy_to_hard: easy negatives for one hard one (Huang et al. 2020: about 100). See
            ``training.negatives`` for its exact meaning with each loss.
        warm_start: a later round starts from the weights of the round before it.
        keep_round: ``"best"`` keeps the round with the best validation NDCG, ``"last"`` the last.
        refresh_every: steps from one mining with the current towers to the next, within each round
            that trains on mined lists (all but the first); None mines between rounds only.
        refresh_lag: steps from the towers that lists are mined with to the first step that uses
            them, 0 to ``refresh_every``; None: ``refresh_every``.
        refresh_background: mine on a thread while training goes on; it waits where lists are late.
        swap: ``"at_step"`` uses new lists from exactly that step on, or ``"when_ready"`` from the
            first step after they are mined, which no run repeats (``refresh_background`` only).

    Optimisation (Adam):
        learning_rate, epochs: the usual.
        batch_size: that of all processes together; None: by the number of training rows (see
            ``training.data_defaults``).
        weight_decay: decoupled (AdamW), on every parameter but a learnt temperature (whose
            logarithm 0 is a temperature of 1) at every step.
        l2: half the squared length of the towers' outputs of the batch (users and every item that
            is scored; before any normalisation), mean over rows, is added to the loss times this:
            the regulariser of most BPR implementations.
        average_decay: d, 0 to 0.999. Above 0, the weights that are evaluated, kept and handed to
            mining between rounds are the mean of those at the ends of the round's epochs so far,
            each epoch's weighing d times that of the next (see ``training.averaging``).
        patience: training stops when the last ``patience`` evaluations hold no best validation
            NDCG and are no better on average than as many before them (see
            ``training.validation``); 0 never stops early (the best epoch is kept all the same).
        eval_every: epochs from one evaluation to the next.
        eval_users: validation users (of events: rows) that are evaluated while training, a sample
            by a seed of its own; None: all of them, or as many as keep evaluation within a fifth
            of the work (see ``training.data_defaults``). The weights that are kept are evaluated
            on all.
        k: the k of the validation metrics.
        row_updates: rows of id embeddings that a step does not read are left alone and brought up
            to date when they are next read, so a step costs the same for any catalog; the rule is
            AdamW's for every row all the same (see ``training.row_adam``). On the CPU.
        precision: of the products of a loss over columns that the batch shares: ``"float32"``,
            ``"bfloat16"`` (sums in float32), or ``"auto"``: bfloat16 where the processor has
            products of it (AVX-512 BF16, AMX) and a batch has a million scores. On the CPU, for
            vectors in float32. What ``"auto"`` became is recorded, and belongs to a run: it is
            not resumed where products are rounded otherwise.

    The run:
        checkpoint_every: steps from one checkpoint to the next; 0: at the end of epochs only.
        num_workers: DataLoader workers that draw negatives; 0 is fast and the default.
        seed: decides the start of the weights, the order of examples and every negative.
        split_seed: decides what is held out for validation where none is given and there are no
            times; another ``seed`` trains and validates on the same pairs.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` (CUDA where there is one).

    Raises:
        FastnegError: a value out of its range, or a combination that means nothing.
    """

    dim: int = 64
    hidden_layers: int = 0
    item_hidden_layers: int | None = None
    history: str = "none"
    history_length: int | None = None
    similarity: str = "dot"
    temperature: float = 1.0
    learn_temperature: bool = False
    temperature_bounds: tuple[float, float] = (0.01, 10.0)
    dropout: float = 0.0
    init_std: float = 0.01
    use_user_ids: bool = True
    use_item_ids: bool = True

    loss: str = "bpr"
    correction: str = "expected_count"
    rewards: bool = False
    user_balance: float = 0.0
    sampler: str = "uniform"
    exponent: float = 0.75
    smoothing: float = 0.0
    num_negatives: int = 1
    exclude_positives: bool = True
    shared: bool = False
    num_uniform: int = 0
    margin: float = 0.2
    negative_weight: float = 1.0
    positive_temperature: float = 1.0
    calibration: float = 0.75
    memory_budget: int = 4 << 30
    exhausted: str = "drop"
    item_frequency: str = "counts"
    frequency_alpha: float = 0.01
    frequency_prior: str = "counts"
    gather_negatives: bool = True
    negatives: tuple[Mapping[str, Any], ...] = ()

    subsample_positives: float | None = None
    subsample_formula: str = "program"
    subsample_weights: bool = False

    rounds: int = 1
    window: tuple[int, int] = (101, 500)
    num_mined: int = 20
    num_hard: int = 1
    easy_to_hard: float = 100.0
    warm_start: bool = True
    keep_round: str = "best"
    refresh_every: int | None = None
    refresh_lag: int | None = None
    refresh_background: bool = False
    swap: str = "at_step"

    learning_rate: float = 1e-3
    batch_size: int | None = None
    epochs: int = 100
    weight_decay: float = 0.0
    l2: float = 0.0
    average_decay: float = 0.0
    patience: int = 5
    eval_every: int = 1
    eval_users: int | None = None
    k: int = 20
    row_updates: bool = True
    precision: str = "auto"

    checkpoint_every: int = 0
    num_workers: int = 0
    seed: int = 0
    split_seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def per_row_negatives(self) -> bool:
        """Whether the loss takes K sampled negatives for each row (and no list of sources)."""
        if self.negatives:
            return False
        own = self.loss in SHARED_LOSSES and not self.shared
        return own or self.loss in PER_ROW_LOSSES

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed; unknown names raise with the nearest ones."""
        with said_by("Settings.replace"):
            for name in changes:
                known(name)
        with said_by("Settings.replace", "Settings"):
            return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, JSON-able (windows, bounds and the negatives are lists)."""
        values = dataclasses.asdict(self)
        values["window"] = list(self.window)
        values["temperature_bounds"] = list(self.temperature_bounds)
        values["negatives"] = [dict(one) for one in self.negatives]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of ``to_dict``; missing names take their defaults."""
        with said_by("Settings.from_dict", "Settings", "Settings.replace"):
            return cls().replace(**as_named(values))


_TYPES: dict[str, Any] = typing.get_type_hints(Settings)


def as_named(values: Any) -> dict[str, Any]:
    """Settings by name, as a dict.

    Raises:
        FastnegTypeError: it is no mapping, or has a key that is no text.
    """
    if not isinstance(values, Mapping):
        raise FastnegTypeError(
            f"Settings: settings = {shown(values)}; give a mapping, as in {{'dim': 64}}"
        )
    for name in values:
        if not isinstance(name, str):
            raise FastnegTypeError(f"Settings: {shown(name)} is no name of a setting; give texts")
    return dict(values)


def setting_names() -> tuple[str, ...]:
    """The names of all settings, in the order of the class."""
    return tuple(field.name for field in dataclasses.fields(Settings))


def known(name: str) -> str:
    """The setting's name, hyphens as underscores.

    Raises:
        FastnegError: there is none of that name; the error names the nearest ones.
    """
    return known_name(name, _TYPES)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``["learning_rate=0.01", "window=101,500"]`` -> ``{"learning_rate": 0.01, ...}``.

    Values are read by the type of their setting; lists are separated by commas; ``none`` is None
    where a setting may be. Later assignments win.

    Raises:
        FastnegError: no ``=``, an unknown key (with the nearest names), or an unreadable value.
    """
    return parse_assignments(assignments, _TYPES)
