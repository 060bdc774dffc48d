"""The range of every setting, and the combinations of them that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastneg.checks import as_choice, as_integer, as_number, fail, is_series, shown
from fastneg.errors import FastnegTypeError
from fastneg.training.list_checks import check_with_settings
from fastneg.training.negative_list import checked_list

if TYPE_CHECKING:
    from fastneg.training.settings import Settings

LOSSES = (
    "in_batch",
    "mixed",
    "sampled_softmax",
    "bpr",
    "bce",
    "nce",
    "hinge",
    "ccl",
    "bsl",
    "gbce",
    "full_softmax",
)
# those that take negatives of each row, or one set for the whole batch
SHARED_LOSSES = ("sampled_softmax", "nce", "hinge", "ccl", "bsl")
# those of each row's own negatives alone
PER_ROW_LOSSES = ("bpr", "bce", "gbce")
# those that mined negatives have no place in, and why
NOT_MINED = {
    "nce": "loss = 'nce' needs the noise's probability of every item, which mined lists have not",
    "gbce": "loss = 'gbce' corrects for uniform negatives alone",
    "full_softmax": "loss = 'full_softmax' has every item as a negative",
}
CORRECTIONS = ("expected_count", "both", "as_printed", "revised", "none")
SAMPLERS = ("uniform", "popularity")
FORMULAS = ("program", "paper")
SIMILARITIES = ("dot", "cosine")
HISTORIES = ("none", "shared", "own")
EXHAUSTED = ("drop", "raise")
SWAPS = ("at_step", "when_ready")
FREQUENCIES = ("counts", "streaming")
PRIORS = ("counts", "uniform", "none")

_CALL = "Settings"
# what is counted in a run; a step beyond is never reached, and no array is longer
_MOST = (1 << 31) - 1
# name -> (least, most); a missing bound is None
_INTEGERS: dict[str, tuple[int | None, int | None]] = {
    "dim": (1, 1 << 20),
    "hidden_layers": (0, 16),
    "num_negatives": (1, _MOST),
    "num_uniform": (0, _MOST),
    "memory_budget": (1, 1 << 62),
    "rounds": (1, 1 << 16),
    "num_mined": (1, _MOST),
    "num_hard": (1, _MOST),
    "epochs": (1, _MOST),
    "patience": (0, _MOST),
    "eval_every": (1, _MOST),
    "k": (1, 1 << 24),
    "checkpoint_every": (0, _MOST),
    "num_workers": (0, 4096),
    "seed": (-(1 << 63), (1 << 64) - 1),
    "split_seed": (-(1 << 63), (1 << 64) - 1),
}
_NUMBERS: dict[str, tuple[float | None, float | None]] = {
    "dropout": (0.0, 0.999),
    "exponent": (None, None),
    "smoothing": (0.0, None),
    "weight_decay": (0.0, None),
    "l2": (0.0, None),
    "average_decay": (0.0, 0.999),
    "user_balance": (0.0, 1.0),
    "margin": (-1.0, None),
    "negative_weight": (0.0, None),
    "calibration": (0.0, 1.0),
}
# the same, where None may stand too
_OPTIONAL_INTEGERS = {
    "batch_size": 1,
    "eval_users": 1,
    "refresh_every": 1,
    "refresh_lag": 0,
    "history_length": 1,
    "item_hidden_layers": 0,
}
_POSITIVE = (
    "temperature",
    "positive_temperature",
    "learning_rate",
    "easy_to_hard",
    "init_std",
)
_CHOICES = {
    "loss": LOSSES,
    "correction": CORRECTIONS,
    "sampler": SAMPLERS,
    "subsample_formula": FORMULAS,
    "similarity": SIMILARITIES,
    "history": HISTORIES,
    "exhausted": EXHAUSTED,
    "item_frequency": FREQUENCIES,
    "frequency_prior": PRIORS,
    "keep_round": ("best", "last"),
    "swap": SWAPS,
    "precision": ("auto", "float32", "bfloat16"),
}
_BOOLS = (
    "use_user_ids",
    "use_item_ids",
    "learn_temperature",
    "rewards",
    "exclude_positives",
    "subsample_weights",
    "shared",
    "gather_negatives",
    "warm_start",
    "refresh_background",
    "row_updates",
)


def check_settings(settings: Settings) -> None:
    """Raise on a value out of its range or a combination that means nothing.

    Numbers are made plain ints and floats in place, the window a tuple; the sources of negatives
    get all their options.

    Raises:
        FastnegError: naming the setting, its value and what would be right.
    """

    def put(name: str, value: Any) -> None:
        object.__setattr__(settings, name, value)

    for name, (least, most) in _INTEGERS.items():
        value = getattr(settings, name)
        put(name, as_integer(value, call=_CALL, name=name, minimum=least, maximum=most))
    for name, least in _OPTIONAL_INTEGERS.items():
        if getattr(settings, name) is not None:
            value = getattr(settings, name)
            put(name, as_integer(value, call=_CALL, name=name, minimum=least, maximum=_MOST))
    for name, (low, high) in _NUMBERS.items():
        value = getattr(settings, name)
        put(name, as_number(value, call=_CALL, name=name, minimum=low, maximum=high))
    for name in _POSITIVE:
        put(name, _positive(name, getattr(settings, name)))
    put("frequency_alpha", _share("frequency_alpha", settings.frequency_alpha))
    if settings.subsample_positives is not None:
        put("subsample_positives", _share("subsample_positives", settings.subsample_positives))
    for name, choices in _CHOICES.items():
        as_choice(getattr(settings, name), choices, call=_CALL, name=name)
    for name in _BOOLS:
        if not isinstance(getattr(settings, name), bool):
            raise FastnegTypeError(
                f"{_CALL}: {name} = {shown(getattr(settings, name))}; give true or false"
            )
    put("window", _window(settings.window))
    put("temperature_bounds", _bounds(settings.temperature_bounds))
    put("negatives", checked_list(settings.negatives))
    _check_device(settings)
    _check_combinations(settings)


def _check_device(settings: Settings) -> None:
    name = settings.device.split(":")[0] if isinstance(settings.device, str) else ""
    if name not in ("auto", "cpu", "cuda", "mps"):
        fail(_CALL, f"device = {shown(settings.device)}; give 'auto', 'cpu', 'cuda' or 'cuda:0'")


def _check_combinations(settings: Settings) -> None:
    if settings.shared and settings.loss not in SHARED_LOSSES:
        others = ", ".join(map(repr, SHARED_LOSSES[1:]))
        fail(
            _CALL,
            f"shared = true goes with loss = 'sampled_softmax', not {settings.loss!r} ({others} "
            "take it too)",
        )
    if settings.loss == "mixed" and settings.num_uniform == 0:
        fail(_CALL, "loss = 'mixed' needs num_uniform = 1 or more ('in_batch' uses none)")
    if settings.loss != "mixed" and settings.num_uniform > 0:
        fail(
            _CALL,
            f"num_uniform = {settings.num_uniform} goes with loss = 'mixed', not {settings.loss!r}",
        )
    width = settings.window[1] - settings.window[0] + 1
    if settings.num_mined > width:
        fail(
            _CALL,
            f"num_mined = {settings.num_mined} are more than the {width} ranks of window = "
            f"{settings.window}",
        )
    if settings.subsample_weights and settings.subsample_positives is None:
        fail(
            _CALL,
            "subsample_weights = true goes with a threshold; give subsample_positives, as in 1e-4",
        )
    if settings.loss == "in_batch" and settings.batch_size == 1:
        fail(_CALL, "batch_size = 1 leaves loss = 'in_batch' no negatives; give 2 or more")
    if not (settings.exclude_positives or settings.per_row_negatives):
        fail(
            _CALL,
            "exclude_positives = false goes with negatives of each row's own; what a batch shares, "
            "and a list of negatives, is masked by the known positives",
        )
    check_with_settings(settings)
    _check_towers(settings)
    _check_loss(settings)
    _check_frequency(settings)
    _check_refresh(settings)


def _check_towers(settings: Settings) -> None:
    if settings.history_length is not None and settings.history == "none":
        fail(
            _CALL,
            f"history_length = {settings.history_length} goes with a history; give history = "
            "'shared' or 'own'",
        )
    if settings.history == "shared" and not settings.use_item_ids:
        fail(
            _CALL,
            "history = 'shared' shares the embedding of item ids, and use_item_ids = false; give "
            "history = 'own'",
        )
    if not settings.learn_temperature:
        return
    low, high = settings.temperature_bounds
    if not low <= settings.temperature <= high:
        fail(
            _CALL,
            f"temperature = {settings.temperature} is not within temperature_bounds = "
            f"{settings.temperature_bounds}, between which it is learnt",
        )
    if settings.loss == "bsl":
        fail(_CALL, "learn_temperature = true learns one temperature; loss = 'bsl' has two")


def _check_loss(settings: Settings) -> None:
    """What a loss alone asks for."""
    loss, margin = settings.loss, settings.margin
    if loss == "hinge" and margin < 0:
        fail(_CALL, f"margin = {margin} is too small for loss = 'hinge'; give 0 or more")
    if loss == "ccl" and margin > 1:
        fail(_CALL, f"margin = {margin} is too large for loss = 'ccl', of cosines; give -1 to 1")
    if loss == "ccl" and settings.similarity != "cosine":
        fail(
            _CALL,
            f"loss = 'ccl' is of cosines; give similarity = 'cosine', not {settings.similarity!r}",
        )
    weight = settings.negative_weight
    if loss == "bsl" and weight != 1 and settings.similarity != "cosine":
        fail(
            _CALL,
            f"negative_weight = {weight} with loss = 'bsl' has no lower bound for dot products "
            "(all scores may move together); give similarity = 'cosine', or 1",
        )
    if loss == "gbce" and settings.sampler != "uniform":
        fail(
            _CALL,
            "loss = 'gbce' corrects for uniform negatives alone; give sampler = 'uniform', not "
            f"{settings.sampler!r}, or another loss",
        )
    if settings.rounds > 1 and loss in NOT_MINED:
        fail(_CALL, f"rounds = {settings.rounds} mines negatives, but {NOT_MINED[loss]}")


def _check_frequency(settings: Settings) -> None:
    if settings.item_frequency == "counts":
        return
    listed = "a list of negatives" if settings.negatives else f"loss = {settings.loss!r}"
    if settings.negatives or settings.loss not in ("in_batch", "mixed"):
        fail(
            _CALL,
            f"item_frequency = 'streaming' goes with loss = 'in_batch' or 'mixed', not {listed}",
        )
    if settings.correction == "none":
        fail(_CALL, "item_frequency = 'streaming' is of a correction; correction = 'none' has none")


def _check_refresh(settings: Settings) -> None:
    every, lag = settings.refresh_every, settings.refresh_lag
    if every is None:
        off = {"refresh_lag": None, "refresh_background": False, "swap": "at_step"}
        for name in (name for name in off if getattr(settings, name) != off[name]):
            fail(
                _CALL,
                f"{name} = {getattr(settings, name)!r} goes with refresh_every; give the steps "
                "from one refresh of the mined lists to the next",
            )
    elif lag is not None and settings.swap == "when_ready":
        fail(_CALL, f"refresh_lag = {lag} goes with swap = 'at_step', not 'when_ready'")
    elif lag is not None and lag > every:
        fail(
            _CALL,
            f"refresh_lag = {lag} is more than refresh_every = {every}: the next lists would "
            "be due before these are used",
        )
    elif settings.swap == "when_ready" and not settings.refresh_background:
        fail(
            _CALL,
            "swap = 'when_ready' goes with refresh_background = true; in the foreground "
            "refresh_lag = 0 uses new lists at once",
        )


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


def _bounds(value: Any) -> tuple[float, float]:
    name = "temperature_bounds"
    given = list(value) if is_series(value) else []
    if len(given) != 2:
        fail(_CALL, f"{name} = {shown(value)}; give two numbers, as in (0.01, 10)")
    low, high = _positive(f"{name}[0]", given[0]), _positive(f"{name}[1]", given[1])
    if high < low:
        fail(_CALL, f"{name} = ({low}, {high}) ends before it starts")
    return low, high


def _window(value: Any) -> tuple[int, int]:
    if not is_series(value):
        fail(_CALL, f"window = {shown(value)}; give two ranks, as in (101, 500)")
    ranks = list(value)
    if len(ranks) != 2:
        fail(_CALL, f"window = {shown(value)} has {len(ranks)} ranks; give two, as in (101, 500)")
    first = as_integer(ranks[0], call=_CALL, name="window[0]", minimum=1, maximum=_MOST)
    last = as_integer(ranks[1], call=_CALL, name="window[1]", maximum=_MOST)
    if last < first:
        fail(_CALL, f"window = ({first}, {last}) ends before it starts")
    return first, last
