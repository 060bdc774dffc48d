"""What a mining call is asked, checked: the same for arrays in memory and for folders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastneg.checks import (
    Float32Array,
    IntArray,
    as_choice,
    as_integer,
    as_integers,
    as_number,
    fail,
    shown,
)
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.mining import window as rules_of
from fastneg.mining.constant import constant_rows
from fastneg.mining.devices import device_name
from fastneg.mining.job import Job
from fastneg.mining.search import check_range, read_positives
from fastneg.mining.window import WindowRules

METRICS = ("ip", "cosine")


@dataclass(frozen=True)
class MiningSettings:
    """The arguments of ``mine_hard_negatives`` that are no arrays; see there."""

    window: tuple[int, int]
    num_negatives: int
    metric: str
    strategy: str
    temperature: float
    min_score: float | None
    max_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    max_per_item: int | None
    group_rule: str
    drop_duplicates: bool
    search: str
    recall: float
    memory: int
    device: str
    seed: int


_MOST = 2**62  # of ranks and numbers of draws: what int64 holds, sums included


def check_settings(
    *,
    call: str,
    window: Any,
    num_negatives: Any,
    metric: Any,
    strategy: Any,
    temperature: Any,
    min_score: Any,
    max_score: Any,
    absolute_margin: Any,
    relative_margin: Any,
    max_per_item: Any,
    group_rule: Any,
    drop_duplicates: Any,
    search: Any,
    recall: Any,
    memory: Any,
    device: Any,
    seed: Any,
) -> MiningSettings:
    """The settings, each of its type and range.

    Raises:
        FastnegError: one that is not, or two that exclude each other.
    """

    def optional(value: Any, name: str, minimum: float | None = None) -> float | None:
        return None if value is None else as_number(value, call=call, name=name, minimum=minimum)

    if not isinstance(drop_duplicates, (bool, np.bool_)):
        raise FastnegTypeError(
            f"{call}: drop_duplicates = {shown(drop_duplicates)} is not True or False"
        )
    ranks = _check_window(window, num_negatives, call)
    settings = MiningSettings(
        window=ranks,
        num_negatives=as_integer(num_negatives, call=call, name="num_negatives"),
        metric=as_choice(metric, METRICS, call=call, name="metric"),
        strategy=as_choice(strategy, rules_of.STRATEGIES, call=call, name="strategy"),
        temperature=as_number(temperature, call=call, name="temperature"),
        min_score=optional(min_score, "min_score"),
        max_score=optional(max_score, "max_score"),
        absolute_margin=optional(absolute_margin, "absolute_margin", minimum=0.0),
        relative_margin=optional(relative_margin, "relative_margin", minimum=0.0),
        max_per_item=None
        if max_per_item is None
        else as_integer(max_per_item, call=call, name="max_per_item", minimum=1, maximum=_MOST),
        group_rule=as_choice(group_rule, rules_of.GROUP_RULES, call=call, name="group_rule"),
        drop_duplicates=bool(drop_duplicates),
        search=as_search(search, call=call),
        recall=as_number(recall, call=call, name="recall", maximum=1.0),
        memory=as_integer(memory, call=call, name="memory", minimum=1),
        device=device_name(device, call=call),
        seed=as_integer(seed, call=call, name="seed"),
    )
    if settings.temperature <= 0:
        fail(call, f"temperature = {settings.temperature} is not above 0")
    low, high = settings.min_score, settings.max_score
    if low is not None and high is not None and low > high:
        fail(call, f"min_score = {low} is above max_score = {high}; no item could be drawn")
    if settings.recall <= 0:
        fail(call, f"recall = {settings.recall} asks for nothing; give a share above 0, up to 1")
    return settings


def as_search(search: Any, *, call: str) -> str:
    """The name of an engine."""
    if isinstance(search, str):
        faiss = search.startswith("faiss:") and bool(search[6:].strip())
        if faiss or search in ("auto", "exact", "ivf"):
            return str(search)
    raise FastnegError(
        f"{call}: search = {shown(search)} is not one of 'auto', 'exact', 'ivf', 'faiss:<factory "
        "string>' (such as 'faiss:IVF1024,Flat')"
    )


def make_job(
    settings: MiningSettings,
    queries: Float32Array,
    items: Float32Array,
    *,
    positives: Any,
    query_users: Any,
    query_groups: Any,
    item_groups: Any,
    call: str,
) -> Job:
    """The job over vectors that are checked (and normalised for "cosine").

    Raises:
        FastnegError: positives or groups that do not fit, a margin without positives, vectors too
            long for float32.
    """
    num_queries, num_items = len(queries), len(items)
    for name, size in (("queries", num_queries), ("items", num_items)):
        if size == 0:
            fail(call, f"{name} is empty; give at least one vector")
    if num_items > np.iinfo(np.int32).max:
        fail(call, f"items has {num_items} rows; at most 2^31 - 1 can be searched")
    lists = read_positives(positives, query_users, num_queries, num_items, call=call)
    groups = _check_groups(query_groups, item_groups, num_queries, num_items, call)
    rules = WindowRules(
        num_negatives=settings.num_negatives,
        strategy=settings.strategy,
        temperature=settings.temperature,
        min_score=settings.min_score,
        max_score=settings.max_score,
        absolute_margin=settings.absolute_margin,
        relative_margin=settings.relative_margin,
        query_groups=groups[0],
        item_groups=groups[1],
        group_rule=settings.group_rule,
        drop_duplicates=settings.drop_duplicates,
        max_per_item=settings.max_per_item,
        seed=settings.seed,
    )
    if rules.has_margin and positives is None:
        fail(
            call,
            "a margin is measured to a query's positives, and positives is None; give "
            "positives, or max_score for one limit for all queries",
        )
    if rules.drop_duplicates and positives is None:
        fail(
            call,
            "drop_duplicates = True leaves out copies of a query's positives, and positives is "
            "None; give positives",
        )
    lengths, longest = check_range(queries, items, call=call)
    cut = (settings.window[0], min(settings.window[1], num_items))
    constant = constant_rows(lengths, items, longest)
    return Job(queries, items, lists, cut, rules, settings.memory, constant, longest, call)


def _check_window(window: Any, num_negatives: Any, call: str) -> tuple[int, int]:
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise FastnegTypeError(
            f"{call}: window = {shown(window)} is not a pair (first rank, last rank)"
        )
    first = as_integer(window[0], call=call, name="window[0]", minimum=1, maximum=_MOST)
    last = as_integer(window[1], call=call, name="window[1]", minimum=1, maximum=_MOST)
    if last < first:
        fail(
            call,
            f"window = ({first}, {last}) ends before it starts; give (first rank, last rank)"
            ", both included",
        )
    count = as_integer(num_negatives, call=call, name="num_negatives", minimum=1, maximum=_MOST)
    if count > last - first + 1:
        fail(
            call,
            f"num_negatives = {count} is more than the {last - first + 1} ranks of window "
            f"({first}, {last}); draws are without replacement",
        )
    return first, last


def _check_groups(
    query_groups: Any, item_groups: Any, num_queries: int, num_items: int, call: str
) -> tuple[IntArray | None, IntArray | None]:
    if (query_groups is None) != (item_groups is None):
        given, missing = ("item_groups", "query_groups")[:: 1 if query_groups is None else -1]
        fail(call, f"{given} is given without {missing}; give both or neither")
    if query_groups is None:
        return None, None
    out = []
    for name, values, length in (
        ("query_groups", query_groups, num_queries),
        ("item_groups", item_groups, num_items),
    ):
        groups = as_integers(values, call=call, name=name)
        if groups.size != length:
            fail(
                call,
                f"{name} has {groups.size} entries; {length} expected, one per row of "
                f"{'queries' if name == 'query_groups' else 'items'}",
            )
        if int(groups.min()) < -1:
            place = int(np.flatnonzero(groups < -1)[0])
            fail(call, f"{name}[{place}] = {groups[place]}; give 0 or more, or -1 for no group")
        out.append(groups)
    return out[0], out[1]
