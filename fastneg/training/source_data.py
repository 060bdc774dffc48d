"""What the sources of a declarative list draw from besides the interactions: groups, impressions.

All that a list needs and was not given is said in one error, before any work starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fastneg.checks import IntArray, fail
from fastneg.data.features import FeatureTable
from fastneg.interactions import Interactions
from fastneg.training.impressions import Impressions
from fastneg.training.settings import Settings


@dataclass(frozen=True)
class SourceData:
    """What a list of negatives draws from.

    Attributes:
        item_groups: int64 [N] by name: the group of each item, -1 for none.
        impressions: what was shown with each positive, or None.
    """

    item_groups: Mapping[str, IntArray] = field(default_factory=dict)
    impressions: Impressions | None = None

    def fingerprint(self) -> str | None:
        """A hash of it; None where there is nothing."""
        if not self.item_groups and self.impressions is None:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for name, labels in self.item_groups.items():
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(labels).tobytes())
        if self.impressions is not None:
            digest.update(self.impressions.fingerprint().encode())
        return digest.hexdigest()


NOTHING = SourceData()


def source_data(
    train: Interactions,
    settings: Settings,
    *,
    item_features: FeatureTable | None = None,
    impressions: Impressions | None = None,
) -> SourceData:
    """What the settings' list of negatives needs of all this.

    Args:
        train: with rows of weight 0 or less where a source draws from them.
        settings: with or without ``negatives``.
        item_features: whose categorical columns are the groups of ``"same-group"``.
        impressions: for the source ``"impressions"``.

    Raises:
        FastnegError: something is missing: one error that names all of it.
    """
    kinds = [one["source"] for one in settings.negatives]
    missing = []
    groups: dict[str, IntArray] = {}
    for source in settings.negatives:
        for name in source.get("groups", ()):
            column = None if item_features is None else item_features.categorical.get(name)
            if column is not None:
                groups[name] = column.codes
            else:
                missing.append(_no_column(name, item_features))
    for kind, else_give in (("explicit", ""), ("reinforced", "; or say exposure = 0, shown = 0")):
        asks = any(
            one["source"] == kind and (one.get("exposure", 1.0) > 0 or one.get("shown", 0) > 0)
            for one in settings.negatives
        )
        if asks and not _has_explicit(train):
            missing.append(
                f"the source {kind!r} draws from rows with weight 0 or less, and there are none "
                f"(--negatives FILE gives such rows{else_give})"
            )
    if "impressions" in kinds and impressions is None:
        missing.append(
            "the source 'impressions' draws from what was shown in a positive's event, and there "
            "are no impressions (--event-column NAME, of --train and --negatives)"
        )
    if missing:
        fail("negatives", "; ".join(dict.fromkeys(missing)))
    return SourceData(groups, impressions if "impressions" in kinds else None)


def _has_explicit(train: Interactions) -> bool:
    return train.row_weights is not None and bool((train.row_weights <= 0).any())


def _no_column(name: str, features: FeatureTable | None) -> str:
    need = f"the source 'same-group' takes groups from a categorical item feature {name!r}"
    if features is None:
        return f"{need}, and there are no item features (--items FILE)"
    for kind in ("multi", "numeric"):
        if name in getattr(features, kind):
            return f"{need}, and {name!r} is {kind} (--item-kind {name}=categorical)"
    there = ", ".join(map(repr, features.categorical)) or "none"
    return f"{need}; categorical ones: {there}"
