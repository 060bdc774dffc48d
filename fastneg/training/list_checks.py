"""What a declarative list of negatives asks of the other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastneg.checks import fail
from fastneg.training.negative_list import AS_SERVED, BATCH_CHOSEN, CALL, UNCORRECTED

if TYPE_CHECKING:
    from fastneg.training.settings import Settings

SOURCE_LOSSES = ("sampled_softmax", "bpr", "bce", "hinge", "ccl", "bsl")


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
        fail(CALL, f"a list of negatives goes with loss = {others}, not {loss!r}{hint}")
    if settings.shared:
        fail(CALL, "shared = true has no place beside negatives; it is an option of 'sampled'")
    if settings.num_negatives != 1:
        fail(
            CALL,
            f"num_negatives = {settings.num_negatives} has no place beside negatives, in which "
            "each source says its own",
        )
    if settings.num_hard != 1:
        fail(
            CALL,
            f"num_hard = {settings.num_hard} has no place beside negatives, in which the source "
            "'mined' says num_negatives",
        )
    if settings.sampler != "uniform":
        fail(
            CALL,
            f"sampler = {settings.sampler!r} has no place beside negatives, in which each source "
            "says its own",
        )
    for kind in ("in-batch", *BATCH_CHOSEN):
        if kind in kinds and settings.batch_size == 1:
            fail(CALL, f"batch_size = 1 leaves the source {kind!r} no negatives; give 2 or more")
    _check_mined(settings)
    _check_first_step(settings)
    if loss != "sampled_softmax" or correction == "none":
        return
    if kinds <= {"queue", *UNCORRECTED}:
        some = ", ".join(map(repr, sorted(kinds)))
        when = " at first" if "queue" in kinds else ""
        fail(
            CALL,
            f"correction = {correction!r} needs log Q, and {some} has none{when}; give correction "
            "= 'none', or a source with a log Q beside it",
        )
    if correction not in ("expected_count", "both"):
        fail(
            CALL,
            f"correction = {correction!r} goes with one source, not with a list of negatives; "
            "give 'expected_count' or 'none'",
        )
    if correction == "both" and not kinds <= set(AS_SERVED):
        some = ", ".join(map(repr, AS_SERVED))
        fail(CALL, f"correction = 'both' has one Q, of the loader; it goes with {some} alone")


def _check_mined(settings: Settings) -> None:
    mined = [one for one in settings.negatives if one["source"] == "mined"]
    if settings.rounds > 1 and not mined:
        fail(
            CALL,
            f"rounds = {settings.rounds} mines lists that no source of negatives takes; put "
            '{source = "mined"} beside the others',
        )
    if mined and settings.rounds == 1:
        fail(
            CALL,
            "the source 'mined' draws from lists that are mined between rounds, and rounds = 1 "
            "mines none; give rounds = 2 or more",
        )
    if len(mined) > 1:
        fail(CALL, "the source 'mined' stands twice in negatives; there is one list a user")
    corrected = settings.loss == "sampled_softmax" and settings.correction == "expected_count"
    if mined and mined[0]["ratio"] is not None and not corrected:
        fail(
            CALL,
            f"ratio = {mined[0]['ratio']} weighs mined columns where correction = "
            "'expected_count' (loss = 'sampled_softmax'); elsewhere every column counts once, and "
            "num_negatives decides",
        )


def _check_first_step(settings: Settings) -> None:
    """Some source must have columns at the first step of the first round."""
    late = [
        one["source"]
        for one in settings.negatives
        if one["source"] in ("queue", "mined") or one.get("first_epoch", 1) > 1
    ]
    if len(late) == len(settings.negatives):
        some = ", ".join(map(repr, dict.fromkeys(late)))
        fail(
            CALL,
            f"the source {some} is empty at first; give another one beside it, as 'in-batch'",
        )
