"""The samplers behind a declarative list: what the loader draws for each of its sources.

Sources that draw nothing (in-batch) have no entry. Every source has a stream of its own, named by
its place in the list.
"""

from __future__ import annotations

from typing import Any

from fastneg.checks import fail
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import Draw
from fastneg.training.explicit_negatives import explicit_lists
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.impressions import ImpressionSampler
from fastneg.training.negative_list import UNCORRECTED, source_names
from fastneg.training.settings import Settings
from fastneg.training.source_data import NOTHING, SourceData

OF_POSITIVES = ("same-group", "impressions")  # their samplers ask for each row's positive


def list_draws(
    train: Interactions,
    settings: Settings,
    *,
    stage: str,
    data: SourceData = NOTHING,
    mined: Sampler | None = None,
) -> dict[str, Draw]:
    """What is drawn for each source that draws, by the source's name, in order.

    Args:
        train: the interactions, whose positives are excluded from each row's own draws.
        settings: with a list of ``negatives``; ``exponent`` and ``smoothing`` are those of every
            popularity sampler in it.
        stage: names the streams of words.
        data: groups and impressions, where a source draws from them.
        mined: of ``mined_sampler``; without it a source ``"mined"`` draws nothing.

    Raises:
        FastnegError: a source without what it draws from: no row with weight 0 or less, no groups,
            no impressions.
    """
    draws = {}
    for name, source in zip(source_names(settings.negatives), settings.negatives, strict=True):
        kind = source["source"]
        if "sampler" not in source or (kind == "mined" and mined is None):
            continue
        sampler = mined if kind == "mined" else _sampler(train, settings, source, name, data)
        assert sampler is not None
        if source.get("exposure", 0.0) > 0:
            lists, easy = explicit_lists(train, kind), _base(train, settings, source, name)
            shown = _listed(train, settings, lists, easy, f"{name}/shown")
            draws[f"{name}/shown"] = Draw(shown.spawn(stage), 1, log_q=False)
        draws[name] = Draw(
            sampler if kind == "mined" else sampler.spawn(stage),
            source.get("candidates", source["num_negatives"]),
            source.get("shared", False),
            kind not in UNCORRECTED,
            kind in OF_POSITIVES,
        )
    return draws


def mined_sampler(
    train: Interactions, settings: Settings, hard: HardNegatives, *, stage: str
) -> Sampler:
    """The sampler of the source ``"mined"``, whichever lists it draws from.

    Raises:
        FastnegError: there are lists, and no such source.
    """
    mined = [one for one in settings.negatives if one["source"] == "mined"]
    if not mined:
        fail("Objective", "there are mined lists, and no source of negatives takes them")
    easy = _base(train, settings, mined[0], "mined")
    return _listed(train, settings, hard.lists, easy, "mined").spawn(stage)


def _sampler(
    train: Interactions, settings: Settings, source: Any, name: str, data: SourceData
) -> Sampler:
    kind = source["source"]
    if kind == "same-group":
        return _same_group(train, settings, source, name, data)
    sampler = _base(train, settings, source, name)
    if kind == "explicit":
        return _listed(train, settings, explicit_lists(train), sampler, name)
    if kind == "reinforced" and source["shown"]:
        return _with_shown(train, settings, source, sampler, name)
    if kind != "impressions":
        return sampler
    if data.impressions is None:
        fail("list_draws", "the source 'impressions' needs impressions, and there are none")
    if train.row_weights is not None and bool((train.row_weights <= 0).any()):
        sampler = _listed(train, settings, explicit_lists(train), sampler, "user")
    return ImpressionSampler(
        data.impressions, interactions=train, fallback=sampler, seed=settings.seed, name=name
    )


def _base(train: Interactions, settings: Settings, source: Any, name: str) -> Sampler:
    if source["sampler"] == "uniform":
        return UniformSampler(train, seed=settings.seed, name=name)
    return PopularitySampler(
        train,
        exponent=settings.exponent,
        smoothing=settings.smoothing,
        seed=settings.seed,
        name=name,
    )


def _listed(
    train: Interactions, settings: Settings, lists: Any, fallback: Sampler, name: str
) -> Sampler:
    return ListedSampler(
        lists, fallback=fallback, interactions=train, seed=settings.seed, name=name
    )


def _with_shown(
    train: Interactions, settings: Settings, source: Any, easy: Sampler, name: str
) -> Sampler:
    """The last ``shown`` of a row's candidates are from its user's list, where it has one."""
    rest = source["candidates"] - source["shown"]
    lists = explicit_lists(train, source["source"])
    if not rest:
        return _listed(train, settings, lists, easy, name)
    shown = ListedSampler(lists, interactions=train, seed=settings.seed, name="shown")
    return MixedSampler(
        [(easy, rest), (shown, source["shown"])], mode="quota", seed=settings.seed, name=name
    )


def _same_group(
    train: Interactions, settings: Settings, source: Any, name: str, data: SourceData
) -> Sampler:
    for group in source["groups"]:
        if group not in data.item_groups:
            fail("list_draws", f"the source 'same-group' needs item groups {group!r}")
    uniform = source["sampler"] == "uniform"
    return GroupedSampler(
        train,
        {group: data.item_groups[group] for group in source["groups"]},
        # uniform: every item alike, those that nobody touched too
        exponent=0.0 if uniform else settings.exponent,
        smoothing=1.0 if uniform else settings.smoothing,
        min_items=source["min_items"],
        seed=settings.seed,
        name=name,
    )
