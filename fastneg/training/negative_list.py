"""The declarative list of negatives: one setting that says which sources feed a row's columns.

In TOML, in a recipe, or as ``--set 'negatives=[{source = "in-batch"}, {source = "dns"}]'``::

    negatives = [
        {source = "in-batch"},
        {source = "dns", candidates = 32, top = 1},
    ]

The columns of all sources stand side by side in one loss. Each source has its options (a default
for each) and its name in the log; a source that is listed twice is numbered.

=================== ==========================================================  ================
``source``          a row's columns                                             log Q
=================== ==========================================================  ================
``"in-batch"``      the other rows' positives                                   as served
``"in-batch-hard"`` the ``num_negatives`` (2) best of these by score, each      none
                    item once (``training.in_batch_hard``)
``"interpolated"``  a x positive + (1 - a) x each of the ``num_negatives`` (2)  none
                    best of these; a is uniform from ``low`` to ``high``
``"queue"``         the items of the last batches, ``size`` of them, with the   as served
                    vectors they had, after ``warm_up`` steps
                    (``training.item_queue``)
``"sampled"``       ``num_negatives`` draws of ``sampler`` (``"uniform"`` or    the sampler's
                    ``"popularity"``) for the row, or for the whole batch
                    where ``shared``
``"explicit"``      ``num_negatives`` draws from the rows of the user with      none
                    weight 0 or less; of ``sampler`` where there are none
``"dns"``           ``num_negatives`` of the ``top`` that score best among      none
                    ``candidates`` draws (``training.dynamic_sampling``)
``"dns-softmax"``   ``num_negatives`` of ``candidates`` draws, by a softmax     none
                    of their scores with a ``temperature``
=================== ==========================================================  ================

An empty list leaves the negatives to the settings ``loss``, ``sampler``, ``num_negatives``,
``shared`` and ``num_uniform``. A list goes with the losses of ``SOURCE_LOSSES``. The pairwise and
contrastive ones count every column once. The softmax (``loss = "sampled_softmax"``) takes

* ``correction = "none"``: every column counts once;
* ``"expected_count"``: every column with a log Q by its own, so that each source is an estimate of
  the full softmax's denominator and the columns' average is one; those without a log Q together
  weigh ``1 / easy_to_hard`` of the catalog's items, as mined columns do;
* ``"both"``: where every column is as the loader serves it (in-batch, queue).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fastneg.checks import as_choice, as_integer, as_number, fail, shown
from fastneg.errors import FastnegTypeError

if TYPE_CHECKING:
    from fastneg.training.settings import Settings

SOURCE_LOSSES = ("sampled_softmax", "bpr", "bce", "hinge", "ccl", "bsl")
SAMPLERS = ("uniform", "popularity")
_CALL = "Settings"

Source = Mapping[str, Any]


class Option(NamedTuple):
    """An option of a source: its default (which tells its type), and the least value of a number.

    ``least`` of a float is exclusive; None: any. ``choices`` of a text. ``optional``: None may
    stand, and is replaced by what the source makes of it.
    """

    default: Any
    least: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False


_NUM_NEGATIVES = Option(1, 1)
_SAMPLER = Option("uniform", choices=SAMPLERS)
KINDS: dict[str, dict[str, Option]] = {
    "in-batch": {},
    "in-batch-hard": {"num_negatives": Option(2, 1)},
    "interpolated": {
        "num_negatives": Option(2, 1),
        "low": Option(0.4),
        "high": Option(0.6),
    },
    "queue": {"size": Option(8192, 1), "warm_up": Option(1000, 0)},
    "sampled": {"num_negatives": _NUM_NEGATIVES, "shared": Option(False), "sampler": _SAMPLER},
    "explicit": {"num_negatives": _NUM_NEGATIVES, "sampler": _SAMPLER},
    "dns": {
        "num_negatives": _NUM_NEGATIVES,
        "candidates": Option(32, 1),
        "top": Option(1, 1, optional=True),
        "sampler": _SAMPLER,
    },
    "dns-softmax": {
        "num_negatives": _NUM_NEGATIVES,
        "candidates": Option(32, 1),
        "temperature": Option(1.0, 0.0),
        "sampler": _SAMPLER,
    },
}
# what the loader serves, and what stands for no part of the catalog: chosen by score, or listed
BATCH_CHOSEN = ("in-batch-hard", "interpolated")
AS_SERVED = ("in-batch", "queue")
UNCORRECTED = (*BATCH_CHOSEN, "explicit", "dns", "dns-softmax")


def checked_list(negatives: Any) -> tuple[dict[str, Any], ...]:
    """The sources with all their options, in order.

    Raises:
        FastnegError: an unknown source or option (with the nearest names), or a bad value.
    """
    if isinstance(negatives, (str, Mapping)) or not isinstance(negatives, Iterable):
        raise FastnegTypeError(
            f'{_CALL}: negatives = {shown(negatives)}; give a list, as in [{{source = "in-batch"}}]'
        )
    return tuple(_checked(f"negatives[{k}]", one) for k, one in enumerate(negatives))


def _checked(place: str, source: Any) -> dict[str, Any]:
    if not isinstance(source, Mapping) or "source" not in source:
        raise FastnegTypeError(
            f'{_CALL}: {place} = {shown(source)}; give a table with source = "..."'
        )
    kind = as_choice(source["source"], tuple(KINDS), call=_CALL, name=f"{place}.source")
    options = KINDS[kind]
    for name in source:
        if name != "source" and name not in options:
            near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
            known = ", ".join(options) or "it has none"
            hint = f"did you mean {near[0]}?" if near else f"known: {known}"
            fail(_CALL, f"{place}: {kind!r} has no option {str(name)!r}; {hint}")
    values: dict[str, Any] = {"source": kind}
    for name, option in options.items():
        value = source.get(name, None if option.optional else option.default)
        values[name] = _value(f"{place}.{name}", option, value)
    if kind == "dns":
        _check_dns(place, values)
    elif kind == "interpolated" and not 0 <= values["low"] <= values["high"] < 1:
        fail(
            _CALL,
            f"{place}: low = {values['low']} and high = {values['high']} are no range of shares; "
            "give 0 <= low <= high < 1",
        )
    elif kind == "dns-softmax":
        _at_most(place, "num_negatives", values, "candidates")
    return values


def _value(name: str, option: Option, value: Any) -> Any:
    if value is None and option.optional:
        return None
    if option.choices:
        return as_choice(value, option.choices, call=_CALL, name=name)
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise FastnegTypeError(f"{_CALL}: {name} = {shown(value)}; give true or false")
        return value
    if isinstance(option.default, int):
        least = None if option.least is None else int(option.least)
        return as_integer(value, call=_CALL, name=name, minimum=least, maximum=1 << 24)
    number = as_number(value, call=_CALL, name=name)
    if option.least is not None and number <= option.least:
        fail(_CALL, f"{name} = {number} must be greater than {option.least:g}")
    return number


def _check_dns(place: str, values: dict[str, Any]) -> None:
    if values["top"] is None:
        values["top"] = values["num_negatives"]
    _at_most(place, "num_negatives", values, "top")
    _at_most(place, "top", values, "candidates")


def _at_most(place: str, name: str, values: Source, limit: str) -> None:
    if values[name] > values[limit]:
        fail(
            _CALL,
            f"{place}: {name} = {values[name]} is more than {limit} = {values[limit]}",
        )


def source_names(negatives: Iterable[Source]) -> tuple[str, ...]:
    """A name for each source: its kind, from the second of a kind on with its number.

    >>> source_names([{"source": "dns"}, {"source": "in-batch"}, {"source": "dns"}])
    ('dns', 'in-batch', 'dns-2')
    """
    seen: dict[str, int] = {}
    names = []
    for one in negatives:
        kind = one["source"]
        seen[kind] = seen.get(kind, 0) + 1
        names.append(kind if seen[kind] == 1 else f"{kind}-{seen[kind]}")
    return tuple(names)


def check_with_settings(settings: Settings) -> None:
    """What a list asks of the other settings.

    Raises:
        FastnegError: a combination that means nothing.
    """
    if not settings.negatives:
        return
    kinds = {one["source"] for one in settings.negatives}
    loss, correction = settings.loss, settings.correction
    if loss not in SOURCE_LOSSES:
        others = ", ".join(map(repr, SOURCE_LOSSES))
        hint = "; in-batch negatives are a source" if loss in ("in_batch", "mixed") else ""
        fail(_CALL, f"a list of negatives goes with loss = {others}, not {loss!r}{hint}")
    if settings.shared:
        fail(_CALL, "shared = true has no place beside negatives; it is an option of 'sampled'")
    if settings.num_negatives != 1:
        fail(
            _CALL,
            f"num_negatives = {settings.num_negatives} has no place beside negatives, in which "
            "each source says its own",
        )
    if settings.sampler != "uniform":
        fail(
            _CALL,
            f"sampler = {settings.sampler!r} has no place beside negatives, in which each source "
            "says its own",
        )
    for kind in ("in-batch", *BATCH_CHOSEN):
        if kind in kinds and settings.batch_size < 2:
            fail(_CALL, f"batch_size = 1 leaves the source {kind!r} no negatives; give 2 or more")
    if kinds == {"queue"}:
        fail(
            _CALL,
            "the source 'queue' is empty at first; give another one beside it, as 'in-batch'",
        )
    if settings.rounds > 1:
        fail(_CALL, f"rounds = {settings.rounds} mines lists that no source of negatives takes")
    if loss != "sampled_softmax" or correction == "none":
        return
    if kinds <= set(UNCORRECTED):
        some = ", ".join(map(repr, sorted(kinds)))
        fail(
            _CALL,
            f"correction = {correction!r} needs log Q, and {some} has none; give correction = "
            "'none', or a source with a log Q beside it",
        )
    if correction not in ("expected_count", "both"):
        fail(
            _CALL,
            f"correction = {correction!r} goes with one source, not with a list of negatives; "
            "give 'expected_count' or 'none'",
        )
    if correction == "both" and not kinds <= set(AS_SERVED):
        some = ", ".join(map(repr, AS_SERVED))
        fail(_CALL, f"correction = 'both' has one Q, of the loader; it goes with {some} alone")
