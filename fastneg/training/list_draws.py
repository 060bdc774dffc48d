"""The samplers behind a declarative list: what the loader draws for each of its sources.

Sources that draw nothing (in-batch) have no entry. Every source has a stream of its own, named by
its place in the list.
"""

from __future__ import annotations

from typing import Any

from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import Draw
from fastneg.training.explicit_negatives import explicit_lists
from fastneg.training.negative_list import UNCORRECTED, source_names
from fastneg.training.settings import Settings


def list_draws(train: Interactions, settings: Settings, *, stage: str) -> dict[str, Draw]:
    """What is drawn for each source that draws, by the source's name, in order.

    Args:
        train: the interactions, whose positives are excluded from each row's own draws.
        settings: with a list of ``negatives``; ``exponent`` and ``smoothing`` are those of every
            popularity sampler in it.
        stage: names the streams of words.

    Raises:
        FastnegError: a source ``"explicit"``, and no row with weight 0 or less.
    """
    draws = {}
    for name, source in zip(source_names(settings.negatives), settings.negatives, strict=True):
        if "sampler" not in source:
            continue
        sampler = _base(train, settings, source, name)
        if source["source"] == "explicit":
            sampler = ListedSampler(
                explicit_lists(train),
                fallback=sampler,
                interactions=train,
                seed=settings.seed,
                name=name,
            )
        draws[name] = Draw(
            sampler.spawn(stage),
            source.get("candidates", source["num_negatives"]),
            source.get("shared", False),
            source["source"] not in UNCORRECTED,
        )
    return draws


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
