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
``"same-group"``    ``num_negatives`` draws from the positive's own group of    the sampler's,
                    the item features' categorical column ``groups`` (several   in the group
                    names: finest first), by ``sampler``; a group with less
                    than ``min_items`` left gives way to the next one, at last
                    to the catalog (``samplers.grouped``)
``"explicit"``      ``num_negatives`` draws from the rows of the user with      none
                    weight 0 or less; of ``sampler`` where there are none
``"impressions"``   ``num_negatives`` draws from what was shown with the        none
                    positive (``training.impressions``); where there is none
                    as ``"explicit"``
``"mined"``         ``num_negatives`` draws from the lists that were mined      none
                    before the round or under way; none in round 1
``"dns"``           ``num_negatives`` of the ``top`` that score best among      none
                    ``candidates`` draws (``training.dynamic_sampling``)
``"dns-softmax"``   ``num_negatives`` of ``candidates`` draws, by a softmax     none
                    of their scores with a ``temperature``
``"reinforced"``    ``num_negatives`` of ``candidates`` draws, ``shown`` of     none
                    them from the rows of the user with weight 0 or less,
                    picked by a small model of width ``dim`` that is rewarded
                    for hard picks and, weighing ``exposure``, for ones like
                    what users were shown (``training.reinforced``)
=================== ==========================================================  ================

Columns of one's own that are hard can come in over the epochs, easy ones first: ``"explicit"``,
``"impressions"`` and ``"mined"`` have no column before epoch ``first_epoch`` (1), all of them from
``full_epoch`` (the same) on, and in between ever more (``columns_in``). Epochs count from 1, in
every round anew.

An empty list leaves the negatives to the settings ``loss``, ``sampler``, ``num_negatives``,
``shared`` and ``num_uniform``. A list goes with the losses of ``list_checks.SOURCE_LOSSES``. The
pairwise and contrastive ones count every column once. The softmax (``loss = "sampled_softmax"``)
takes

* ``correction = "none"``: every column counts once;
* ``"expected_count"``: every column with a log Q by its own, so that each source is an estimate of
  the full softmax's denominator and the columns' average is one; those without a log Q together
  weigh ``1 / easy_to_hard`` of the catalog's items, as mined columns do, and a ``"mined"`` with a
  ``ratio`` of its own ``1 / ratio`` (a column that is not there yet lacks its part of that);
  ``"same-group"`` estimates the denominator over the group: alone it is the softmax within it, and
  among n columns its K count the group's items once and all others 1 - K / n times;
* ``"both"``: where every column is as the loader serves it (in-batch, queue).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastneg.checks import as_choice, as_integer, as_number, fail, is_series, shown
from fastneg.errors import FastnegTypeError

SAMPLERS = ("uniform", "popularity")
CALL = "Settings"

Source = Mapping[str, Any]


class Option(NamedTuple):
    """An option of a source: its default (which tells its type), and the least value of a number.

    ``least`` of a float is exclusive; None: any. ``choices`` of a text. ``optional``: None may
    stand, and is replaced by what the source makes of it. A tuple is of names, and must be given.
    """

    default: Any
    least: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False


_NUM_NEGATIVES = Option(1, 1)
_SAMPLER = Option("uniform", choices=SAMPLERS)
_HARD_DRAWS = {
    "num_negatives": _NUM_NEGATIVES,
    "sampler": _SAMPLER,
    "first_epoch": Option(1, 1),
    "full_epoch": Option(1, 1, optional=True),
}
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
    "same-group": {
        "groups": Option(()),
        "num_negatives": _NUM_NEGATIVES,
        "min_items": Option(10, 1),
        "sampler": _SAMPLER,
    },
    "explicit": _HARD_DRAWS,
    "impressions": _HARD_DRAWS,
    "mined": {**_HARD_DRAWS, "ratio": Option(100.0, 0.0, optional=True)},
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
    "reinforced": {
        "num_negatives": _NUM_NEGATIVES,
        "candidates": Option(32, 1),
        "shown": Option(1, 0),
        "temperature": Option(1.0, 0.0),
        "dim": Option(16, 1),
        "learning_rate": Option(0.05, 0.0),
        "exposure": Option(1.0),
        "sampler": _SAMPLER,
    },
}
# what the loader serves, and what stands for no part of the catalog: chosen by score, or listed
LISTED = ("explicit", "impressions", "mined")
BATCH_CHOSEN = ("in-batch-hard", "interpolated")
AS_SERVED = ("in-batch", "queue")
UNCORRECTED = (*BATCH_CHOSEN, *LISTED, "dns", "dns-softmax", "reinforced")


def checked_list(negatives: Any) -> tuple[dict[str, Any], ...]:
    """The sources with all their options, in order.

    Raises:
        FastnegError: an unknown source or option (with the nearest names), or a bad value.
    """
    if isinstance(negatives, Mapping) or not is_series(negatives):
        raise FastnegTypeError(
            f'{CALL}: negatives = {shown(negatives)}; give a list, as in [{{source = "in-batch"}}]'
        )
    return tuple(_checked(f"negatives[{k}]", one) for k, one in enumerate(negatives))


def _checked(place: str, source: Any) -> dict[str, Any]:
    if not isinstance(source, Mapping) or "source" not in source:
        raise FastnegTypeError(
            f'{CALL}: {place} = {shown(source)}; give a table with source = "..."'
        )
    kind = as_choice(source["source"], tuple(KINDS), call=CALL, name=f"{place}.source")
    options = KINDS[kind]
    for name in source:
        if name != "source" and name not in options:
            near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
            known = ", ".join(options) or "it has none"
            hint = f"did you mean {near[0]}?" if near else f"known: {known}"
            fail(CALL, f"{place}: {kind!r} has no option {str(name)!r}; {hint}")
    values: dict[str, Any] = {"source": kind}
    for name, option in options.items():
        if option.default == () and name not in source:
            fail(CALL, f'{place}: {kind!r} needs {name}, as in {name} = "market"')
        value = source.get(name, None if option.optional else option.default)
        values[name] = _value(f"{place}.{name}", option, value)
    if kind == "dns":
        _check_dns(place, values)
    elif kind == "interpolated" and not 0 <= values["low"] <= values["high"] < 1:
        fail(
            CALL,
            f"{place}: low = {values['low']} and high = {values['high']} are no range of shares; "
            "give 0 <= low <= high < 1",
        )
    elif kind == "dns-softmax":
        _at_most(place, "num_negatives", values, "candidates")
    elif kind == "reinforced":
        if values["exposure"] < 0:
            fail(CALL, f"{place}.exposure = {values['exposure']} is negative; give 0 or more")
        _at_most(place, "shown", values, "candidates")
    elif kind in LISTED:
        if values["full_epoch"] is None:
            values["full_epoch"] = values["first_epoch"]
        _at_most(place, "first_epoch", values, "full_epoch")
    return values


def _value(name: str, option: Option, value: Any) -> Any:
    if value is None and option.optional:
        return None
    if isinstance(option.default, tuple):
        return _names(name, value)
    if option.choices:
        return as_choice(value, option.choices, call=CALL, name=name)
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise FastnegTypeError(f"{CALL}: {name} = {shown(value)}; give true or false")
        return value
    if isinstance(option.default, int):
        least = None if option.least is None else int(option.least)
        return as_integer(value, call=CALL, name=name, minimum=least, maximum=1 << 24)
    number = as_number(value, call=CALL, name=name)
    if option.least is not None and number <= option.least:
        fail(CALL, f"{name} = {number} must be greater than {option.least:g}")
    return number


def _names(name: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise FastnegTypeError(f"{CALL}: {name} = {shown(value)}; give a name or a list of names")
    for one in names:
        if not isinstance(one, str) or not one:
            raise FastnegTypeError(f"{CALL}: {name} has {shown(one)}; give names")
    if len(set(names)) < len(names):
        fail(CALL, f"{name} = {shown(value)} names one twice")
    return list(names)


def _check_dns(place: str, values: dict[str, Any]) -> None:
    if values["top"] is None:
        values["top"] = values["num_negatives"]
    _at_most(place, "num_negatives", values, "top")
    _at_most(place, "top", values, "candidates")


def _at_most(place: str, name: str, values: Source, limit: str) -> None:
    if values[name] > values[limit]:
        fail(
            CALL,
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


def columns_in(source: Source, epoch: int) -> int:
    """How many of its ``num_negatives`` columns a source has in an epoch: easy ones first.

    None before ``first_epoch``, all from ``full_epoch`` on, and in between as many more each epoch,
    rounded up. Sources without these options have all of them.

    >>> late = {"num_negatives": 4, "first_epoch": 2, "full_epoch": 5}
    >>> [columns_in(late, epoch) for epoch in range(6)]
    [0, 1, 2, 3, 4, 4]

    Args:
        source: with its options, as ``checked_list`` gives them.
        epoch: counted from 0, as the batches count it (the options count from 1).
    """
    count = int(source["num_negatives"])
    first = int(source.get("first_epoch", 1))
    steps = int(source.get("full_epoch", first)) - first + 1
    done = min(max(epoch + 1 - first + 1, 0), steps)
    return -(-count * done // steps)
