"""Every setting of a training run in one frozen dataclass, checked when it is made.

``Settings()`` holds the defaults; a recipe changes some of them; ``--set key=value`` changes some
of those. An unknown key or a bad value ends in one line that says what would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastneg.checks import as_choice, as_integer, as_number, fail
from fastneg.errors import FastnegError, FastnegTypeError

LOSSES = ("in_batch", "mixed", "sampled_softmax", "bpr", "bce")
CORRECTIONS = ("expected_count", "both", "as_printed", "revised", "none")
SAMPLERS = ("uniform", "popularity")
FORMULAS = ("program", "paper")
SIMILARITIES = ("dot", "cosine")
EXHAUSTED = ("drop", "raise")
SWAPS = ("at_step", "when_ready")

_CALL = "Settings"
# name -> (least, most); a missing bound is None
_INTEGERS: dict[str, tuple[int | None, int | None]] = {
    "dim": (1, 1 << 20),
    "hidden_layers": (0, 16),
    "num_negatives": (1, None),
    "num_uniform": (0, None),
    "rounds": (1, None),
    "num_mined": (1, None),
    "num_hard": (1, None),
    "batch_size": (1, None),
    "epochs": (1, None),
    "patience": (0, None),
    "eval_every": (1, None),
    "k": (1, 1 << 24),
    "checkpoint_every": (0, None),
    "num_workers": (0, None),
    "seed": (None, None),
}
_NUMBERS: dict[str, tuple[float | None, float | None]] = {
    "dropout": (0.0, 0.999),
    "exponent": (None, None),
    "smoothing": (0.0, None),
    "weight_decay": (0.0, None),
    "l2": (0.0, None),
}
# the same, where None may stand too
_OPTIONAL_INTEGERS = {"refresh_every": 1, "refresh_lag": 0}
_POSITIVE = ("temperature", "learning_rate", "easy_to_hard")
_CHOICES = {
    "loss": LOSSES,
    "correction": CORRECTIONS,
    "sampler": SAMPLERS,
    "subsample_formula": FORMULAS,
    "similarity": SIMILARITIES,
    "exhausted": EXHAUSTED,
    "keep_round": ("best", "last"),
    "swap": SWAPS,
}
_BOOLS = (
    "use_user_ids",
    "use_item_ids",
    "rewards",
    "subsample_weights",
    "shared",
    "warm_start",
    "refresh_background",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one training run.

    Towers:
        dim: width D of the vectors.
        hidden_layers: hidden layers of each tower's MLP, each half as wide as the one before it;
            0 is matrix factorisation (or, with features, a sum of embeddings).
        similarity: ``"dot"`` or ``"cosine"``.
        temperature: the losses divide scores by it, before any correction.
        dropout: share of hidden units dropped while training.
        init_std: standard deviation of the embeddings' start; None leaves it to the towers.
        use_user_ids, use_item_ids: False trains on features alone.

    Loss and negatives:
        loss: ``"in_batch"`` (the other rows' positives), ``"mixed"`` (those and ``num_uniform``
            uniform items; Yang et al. 2020), ``"sampled_softmax"``, ``"bpr"`` or ``"bce"``.
        correction: the form of the logQ correction of the softmax losses (see
            ``training.losses``).
        rewards: weigh each row by its interaction weight.
        sampler, exponent, smoothing: where sampled negatives come from; popularity is
            (users + smoothing)^exponent.
        num_negatives: K, per row, or per batch where ``shared``.
        shared: one set of negatives for the whole batch (``sampled_softmax`` only).
        num_uniform: B' of mixed negatives.
        exhausted: what becomes of rows of users for whom nothing can be drawn.

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
        learning_rate, batch_size, epochs: the usual.
        weight_decay: decoupled (AdamW), on every parameter at every step.
        l2: half the squared length of the towers' outputs of the batch (users, positives and the
            per-row negatives; before any normalisation), mean over rows, is added to the loss
            times this: the regulariser of most BPR implementations.
        patience: evaluations without a better validation NDCG before stopping; 0 never stops
            early (the best epoch is kept all the same).
        eval_every: epochs from one evaluation to the next.
        k: the k of the validation metrics.

    The run:
        checkpoint_every: steps from one checkpoint to the next; 0: at the end of epochs only.
        num_workers: DataLoader workers that draw negatives; 0 is fast and the default.
        seed: decides the start of the weights, the order of examples and every negative.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` (CUDA where there is one).

    Raises:
        FastnegError: a value out of its range, or a combination that means nothing.
    """

    dim: int = 64
    hidden_layers: int = 0
    similarity: str = "dot"
    temperature: float = 1.0
    dropout: float = 0.0
    init_std: float | None = None
    use_user_ids: bool = True
    use_item_ids: bool = True

    loss: str = "bpr"
    correction: str = "expected_count"
    rewards: bool = False
    sampler: str = "uniform"
    exponent: float = 0.75
    smoothing: float = 0.0
    num_negatives: int = 1
    shared: bool = False
    num_uniform: int = 0
    exhausted: str = "drop"

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
    batch_size: int = 2048
    epochs: int = 100
    weight_decay: float = 0.0
    l2: float = 0.0
    patience: int = 5
    eval_every: int = 1
    k: int = 20

    checkpoint_every: int = 0
    num_workers: int = 0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, (least, most) in _INTEGERS.items():
            value = getattr(self, name)
            put(name, as_integer(value, call=_CALL, name=name, minimum=least, maximum=most))
        for name, least in _OPTIONAL_INTEGERS.items():
            if getattr(self, name) is not None:
                put(name, as_integer(getattr(self, name), call=_CALL, name=name, minimum=least))
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            put(name, as_number(value, call=_CALL, name=name, minimum=low, maximum=high))
        for name in _POSITIVE:
            put(name, _positive(name, getattr(self, name)))
        for name, check in (("init_std", _positive), ("subsample_positives", _share)):
            if getattr(self, name) is not None:
                put(name, check(name, getattr(self, name)))
        for name, choices in _CHOICES.items():
            as_choice(getattr(self, name), choices, call=_CALL, name=name)
        for name in _BOOLS:
            if not isinstance(getattr(self, name), bool):
                raise FastnegTypeError(
                    f"{_CALL}: {name} = {getattr(self, name)!r}; give true or false"
                )
        put("window", _window(self.window))
        self._check_device()
        self._check_combinations()

    def _check_device(self) -> None:
        name = self.device.split(":")[0] if isinstance(self.device, str) else ""
        if name not in ("auto", "cpu", "cuda", "mps"):
            fail(_CALL, f"device = {self.device!r}; give 'auto', 'cpu', 'cuda' or 'cuda:0'")

    def _check_combinations(self) -> None:
        if self.shared and self.loss != "sampled_softmax":
            fail(_CALL, f"shared = true goes with loss = 'sampled_softmax', not {self.loss!r}")
        if self.loss == "mixed" and self.num_uniform == 0:
            fail(_CALL, "loss = 'mixed' needs num_uniform = 1 or more ('in_batch' uses none)")
        if self.loss != "mixed" and self.num_uniform > 0:
            fail(
                _CALL,
                f"num_uniform = {self.num_uniform} goes with loss = 'mixed', not {self.loss!r}",
            )
        width = self.window[1] - self.window[0] + 1
        if self.num_mined > width:
            fail(
                _CALL,
                f"num_mined = {self.num_mined} are more than the {width} ranks of window = "
                f"{self.window}",
            )
        if self.subsample_weights and self.subsample_positives is None:
            fail(
                _CALL,
                "subsample_weights = true goes with a threshold; give subsample_positives, as in "
                "1e-4",
            )
        if self.loss == "in_batch" and self.batch_size < 2:
            fail(_CALL, "batch_size = 1 leaves loss = 'in_batch' no negatives; give 2 or more")
        self._check_refresh()

    def _check_refresh(self) -> None:
        every, lag = self.refresh_every, self.refresh_lag
        if every is None:
            off = {"refresh_lag": None, "refresh_background": False, "swap": "at_step"}
            for name in (name for name in off if getattr(self, name) != off[name]):
                fail(
                    _CALL,
                    f"{name} = {getattr(self, name)!r} goes with refresh_every; give the steps "
                    "from one refresh of the mined lists to the next",
                )
        elif lag is not None and self.swap == "when_ready":
            fail(_CALL, f"refresh_lag = {lag} goes with swap = 'at_step', not 'when_ready'")
        elif lag is not None and lag > every:
            fail(
                _CALL,
                f"refresh_lag = {lag} is more than refresh_every = {every}: the next lists would "
                "be due before these are used",
            )
        elif self.swap == "when_ready" and not self.refresh_background:
            fail(
                _CALL,
                "swap = 'when_ready' goes with refresh_background = true; in the foreground "
                "refresh_lag = 0 uses new lists at once",
            )

    @property
    def per_row_negatives(self) -> bool:
        """Whether the loss takes K sampled negatives for each row."""
        return self.loss in ("bpr", "bce") or (self.loss == "sampled_softmax" and not self.shared)

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed; unknown names raise with the nearest ones."""
        for name in changes:
            known(name)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, JSON-able (the window is a list)."""
        values = dataclasses.asdict(self)
        values["window"] = list(self.window)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of ``to_dict``; missing names take their defaults."""
        return cls().replace(**dict(values))


def _positive(name: str, value: Any) -> float:
    number = as_number(value, call=_CALL, name=name)
    if number <= 0:
        fail(_CALL, f"{name} = {number} must be greater than 0")
    return number


def _share(name: str, value: Any) -> float:
    number = as_number(value, call=_CALL, name=name)
    if not 0 < number <= 1:
        fail(_CALL, f"{name} = {number} is not a share; give more than 0 and at most 1")
    return number


def _window(value: Any) -> tuple[int, int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        fail(_CALL, f"window = {value!r}; give two ranks, as in (101, 500)")
    ranks = list(value)
    if len(ranks) != 2:
        fail(_CALL, f"window = {value!r} has {len(ranks)} ranks; give two, as in (101, 500)")
    first = as_integer(ranks[0], call=_CALL, name="window[0]", minimum=1)
    last = as_integer(ranks[1], call=_CALL, name="window[1]")
    if last < first:
        fail(_CALL, f"window = ({first}, {last}) ends before it starts")
    return first, last


_TYPES: dict[str, Any] = typing.get_type_hints(Settings)


def setting_names() -> tuple[str, ...]:
    """The names of all settings, in the order of the class."""
    return tuple(field.name for field in dataclasses.fields(Settings))


def known(name: str) -> str:
    """The setting's name, hyphens as underscores.

    Raises:
        FastnegError: there is none of that name; the error names the nearest ones.
    """
    plain = name.strip().replace("-", "_")
    if plain in _TYPES:
        return plain
    near = difflib.get_close_matches(plain, _TYPES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(_TYPES)
    raise FastnegError(f"no setting is called {name!r}; {hint}")


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``["learning_rate=0.01", "window=101,500"]`` -> ``{"learning_rate": 0.01, ...}``.

    Values are read by the type of their setting; lists are separated by commas; ``none`` is None
    where a setting may be. Later assignments win.

    Raises:
        FastnegError: no ``=``, an unknown key (with the nearest names), or an unreadable value.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise FastnegError(f"--set {assignment!r}: give key=value, as in learning_rate=0.01")
        name = known(key)
        values[name] = _parse(name, text.strip())
    return values


def _parse(name: str, text: str) -> Any:
    kind = _TYPES[name]
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if kind is int:
            return int(text.replace("_", ""))
        if kind is float:
            return float(text)
        if kind is str:
            return text.strip("\"'")
        if name == "window":
            first, last = text.strip("()[] ").replace(",", " ").split()
            return int(first), int(last)
        if text.lower() in ("none", ""):
            return None
        return int(text.replace("_", "")) if kind == int | None else float(text)
    except (ValueError, KeyError):
        plain = {bool: "true or false", int: "an integer", float: "a number"}
        optional = {int | None: "an integer or none", tuple[int, int]: "two ranks, as in 101,500"}
        wanted = (plain | optional).get(kind, "a number or none")
        raise FastnegError(f"--set {name}={text}: {text!r} is not {wanted}") from None
