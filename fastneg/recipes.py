"""Named set-ups: towers, negatives and a loss that belong together, each from a paper.

``train_recipe`` runs one from interactions to a folder with the trained model; the command line
and the demo call it. Nothing is ever chosen on test: the epoch, the round and whatever else is
chosen come from validation. Under torchrun all its processes run it, and the first writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastneg.errors import FastnegError, said_by
from fastneg.training.recipe_list import Recipe, find_recipe, recipes
from fastneg.training.recipe_list import recipe as named_recipe
from fastneg.training.settings import Settings, as_named

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable
    from fastneg.interactions import Interactions
    from fastneg.training.impressions import Impressions
    from fastneg.training.rounds import RoundsResult
    from fastneg.training.towers import TwoTower

__all__ = ["Recipe", "TrainResult", "recipe", "recipes", "train_recipe"]

recipe = named_recipe  # train_recipe has an argument of the same name


@dataclass(frozen=True)
class TrainResult:
    """A trained model and what is known of it.

    Attributes:
        model: the towers, in evaluation mode.
        settings: all of them.
        metrics: what ``metrics.json`` holds: ``validation``, ``test``, ``seconds``, ``epoch``,
            ``refit``, ``rounds``, ``reproducible``, ``settings``, ``counts``, ``recipe``,
            ``seed``, ``by_data`` (the settings that the data decided, and by which rule),
            ``features`` (the kind of each column).
        folder: where it was written, or None.
    """

    model: TwoTower
    settings: Settings
    metrics: dict[str, Any]
    folder: Path | None = None


def train_recipe(
    train: Interactions,
    validation: Interactions | None = None,
    test: Interactions | None = None,
    *,
    recipe: str | Recipe,
    settings: Mapping[str, Any] | None = None,
    negatives: Interactions | None = None,
    impressions: Impressions | None = None,
    user_features: FeatureTable | None = None,
    item_features: FeatureTable | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    refit: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    out: str | Path | None = None,
    progress: bool | None = False,
    on_step: Callable[[int], object] | None = None,
) -> TrainResult:
    """Train a recipe, evaluate it, write it.

    Args:
        train: interactions, or ``data.events.Events``, whose queries have a context, and then all
            three; with ``validation=None`` a tenth of each user's items is held out of
            it (``data.splits.hold_out_validation``) and trained on only by ``refit``.
        validation, test: interactions with the codes of ``train``; further codes are unknown
            users and items (not in ``validation`` with ``refit``, which trains on it).
        recipe: a name, a file as ``fastneg recipes show`` prints it (``NAME.toml``), or a
            ``Recipe``.
        settings: overrides by name.
        negatives: explicit negatives, with the codes of ``train``, for the sources
            ``"explicit"``, ``"impressions"`` and ``"reinforced"``; beside ``Events`` as
            ``data.events.read_shown`` reads them.
        impressions: what was shown with each positive, for the source ``"impressions"``.
        user_features, item_features: tables aligned with the codes (of ``Events`` with those of
            the known users); categorical columns of items are the groups of the source
            ``"same-group"``.
        seed: overrides the settings' seed.
        split_seed: overrides the settings' split seed, which decides what is held out of ``train``
            where there are no times.
        refit: after choosing on validation, train again from the start on train + validation for
            the chosen epochs; the model, its vectors and the test metrics are the refitted
            model's, the validation metrics the first one's.
        resume: go on in ``out`` where an interrupted run stopped; a finished one is trained on
            where it gets more ``epochs`` or more ``patience``.
        overwrite: replace the run in ``out``; without either, a folder that holds one is refused.
        out: a folder to write (see ``training.outputs``), or None.
        progress: whether to show bars where stderr is a terminal (None: yes).
        on_step: called after every optimizer step with the stage's number of steps.

    Raises:
        FastnegError: bad settings, data without validation examples, a folder that cannot be
            written, holds a run already or is written by another, codes that differ.
        CheckpointError: ``resume`` with other data or settings.
    """
    from fastneg.data.events import Events
    from fastneg.data.splits import hold_out_validation
    from fastneg.training.data_defaults import settled
    from fastneg.training.distributed import Ranks
    from fastneg.training.event_evaluation import check_alike
    from fastneg.training.explicit_negatives import with_explicit_negatives
    from fastneg.training.outputs import CHECKPOINTS, write_metrics, write_model
    from fastneg.training.protocol import check_held_out
    from fastneg.training.rounds import check_rounds, train_rounds
    from fastneg.training.run_folder import RunFolder
    from fastneg.training.source_data import source_data

    folder = _checked_objects(
        train,
        {"validation": validation, "test": test, "negatives": negatives},
        {"user_features": user_features, "item_features": item_features},
        out,
    )
    flags = {"refit": refit, "resume": resume, "overwrite": overwrite}
    refit, resume, overwrite = _checked_flags(flags, impressions, progress, on_step)
    chosen = recipe
    if not isinstance(chosen, Recipe):
        chosen = find_recipe(chosen, call="train_recipe", argument="recipe")
    seeds = {"seed": seed, "split_seed": split_seed}
    with said_by("train_recipe", "Settings", "Settings.replace"):
        values = chosen.settings({
            **as_named({} if settings is None else settings),
            **{name: one for name, one in seeds.items() if one is not None},
        })  # fmt: skip
    check_alike("train_recipe", train, validation=validation, test=test)
    check_held_out("train_recipe", train, validation=validation, test=test)
    if refit and validation is not None:
        _refuse_further(train, validation)
    if validation is None:
        train, validation = hold_out_validation(train, seed=values.split_seed)
        if validation.num_positives == 0:
            raise FastnegError(
                "train_recipe: no user has 5 items or more, so nothing can be held out of train "
                "for validation; give validation"
            )
    kinds = {one["source"] for one in values.negatives}
    if negatives is not None:
        if not kinds & {"explicit", "impressions", "reinforced"}:
            raise FastnegError(
                "train_recipe: there are explicit negatives, and no source takes them; set "
                'negatives=[{source = "explicit"}], or put it beside the others'
            )
        train = with_explicit_negatives(train, negatives, by_event=impressions is not None)
    if impressions is not None and "impressions" not in kinds:
        raise FastnegError(
            "train_recipe: there are impressions, and no source takes them; set "
            'negatives=[{source = "impressions"}], or put it beside the others'
        )
    source_data(train, values, item_features=item_features, impressions=impressions)
    values, by_data = settled(values, train, validation)
    ranks = Ranks.here()
    check_rounds(train, values)
    warm = user_features is not None or refit  # whether users without training rows may count
    _check_evaluations(train, validation, test, scores_cold_users=warm)
    common: dict[str, Any] = {
        "user_features": user_features,
        "item_features": item_features,
        "impressions": impressions,
        "folder": None if folder is None else folder / CHECKPOINTS,
        "log": None if folder is None else folder / "metrics.jsonl",
        "resume": resume,
        "progress": progress,
        "on_step": on_step,
    }
    with contextlib.ExitStack() as held:
        clear = None
        if folder is not None:
            place = RunFolder(folder, resume=resume, overwrite=overwrite, call="train_recipe")
            held.enter_context(place.held(ranks))
            clear = place.clear if ranks.is_first else None
        first = train_rounds(
            train, values, validation=validation, followed_by=("refit",), starting=clear, **common
        )
        result, seconds = first, first.seconds
        seen = train
        masked: Interactions | None = validation
        if refit:
            kept = [one.fit.epoch for one in first.rounds[: first.best.number]]
            seen, masked = _together(train, validation), None
            result = train_rounds(seen, values, epochs=kept, label="refit", **common)
            seconds += result.seconds
        metrics = _metrics(first, chosen, values, seconds, refit=refit)
        metrics["by_data"] = by_data
        tables = {"users": user_features, "items": item_features}
        if isinstance(train, Events):
            tables["context"] = train.context
        metrics["features"] = {
            side: table.describe() for side, table in tables.items() if table is not None
        }
        metrics["reproducible"] = all(one.fit.reproducible for one in first.rounds + result.rounds)
        metrics["counts"] = {
            "users": train.num_users,
            "items": train.num_items,
            "train_rows": seen.num_rows,
            "train_positives": seen.num_positives,
            "validation_positives": validation.num_positives,
            "validation": dict(first.best.fit.counts),
        }
        if test is not None:
            found = _on_test(result.model, seen, masked, test, values.k) if ranks.is_first else None
            metrics["test"], metrics["counts"]["test"] = ranks.from_first(found)
        if folder is not None and ranks.is_first:
            write_model(
                folder,
                result.model,
                seen,
                config={"recipe": chosen.name, "refit": refit, "settings": values.to_dict()},
                user_features=user_features,
                item_features=item_features,
            )
            write_metrics(folder, metrics)
        ranks.any(False)  # no rank goes on before the files are there
    return TrainResult(result.model, values, metrics, folder)


def _checked_objects(
    train: Any, interactions: dict[str, Any], tables: dict[str, Any], out: Any
) -> Path | None:
    """Raise on arguments of ``train_recipe`` that are other objects than it takes; the folder."""
    from fastneg.checks import as_path, check_kind
    from fastneg.data.features import FeatureTable
    from fastneg.same_codes import check_interactions, same_ids

    call = "train_recipe"
    check_interactions(call, train=train, optional=interactions)
    given = {name: table for name, table in tables.items() if table is not None}
    check_kind(call, FeatureTable, "a FeatureTable", **given)
    same_ids(call, train, **tables)
    return None if out is None else as_path(out, call=call, name="out")


def _checked_flags(
    flags: dict[str, Any], impressions: Any, progress: Any, on_step: Any
) -> list[bool]:
    """The same of what says how ``train_recipe`` runs; the flags."""
    from fastneg.checks import as_flag, as_progress, check_functions, check_kind
    from fastneg.training.impressions import Impressions

    call = "train_recipe"
    if impressions is not None:
        check_kind(call, Impressions, "Impressions", impressions=impressions)
    if progress is not None:
        as_progress(progress, call=call)
    check_functions(call, on_step=on_step)
    return [as_flag(value, call=call, name=name) for name, value in flags.items()]


def _check_evaluations(
    train: Interactions,
    validation: Interactions,
    test: Interactions | None,
    *,
    scores_cold_users: bool,
) -> None:
    """Raise before the training what the evaluations after it would raise."""
    from fastneg.training.event_evaluation import check_evaluable

    for name, other, masked in (("validation", validation, None), ("test", test, validation)):
        if other is not None:
            check_evaluable(
                f"train_recipe: {name}", train, masked, other, scores_cold_users=scores_cold_users
            )


def _metrics(
    first: RoundsResult, chosen: Recipe, values: Settings, seconds: float, *, refit: bool
) -> dict[str, Any]:
    return {
        "recipe": chosen.name,
        "seed": values.seed,
        "validation": dict(first.best.fit.metrics),
        "test": {},
        "seconds": seconds,
        "epoch": first.best.fit.epoch,
        "round": first.best.number,
        "refit": refit,
        "rounds": [one.to_dict() for one in first.rounds],
        "settings": values.to_dict(),
    }


def _refuse_further(train: Interactions, validation: Interactions) -> None:
    """Raise unless the model that is trained on validation too has a code for all of it."""
    further = (validation.num_users - train.num_users, validation.num_items - train.num_items)
    if max(further) > 0:
        raise FastnegError(
            f"train_recipe: validation has {validation.num_users} users and {validation.num_items} "
            f"items, train has {train.num_users} and {train.num_items}; refit trains on both, so "
            "all need the same codes (take them from one Interactions, or read train with all "
            "user_ids and item_ids)"
        )


def _together(train: Interactions, validation: Interactions) -> Interactions:
    """Train and validation rows in one, with the codes of both.

    Validation has the codes of train, and no ids where it was made of codes: train has the ids.
    """
    context = getattr(validation, "context", None)  # of events
    extra: dict[str, Any] = {} if context is None else {"context": context}
    return train.append(
        train.decode_users(validation.row_users),
        train.decode_items(validation.row_items),
        weights=validation.row_weights,
        times=validation.row_times,
        **extra,
    )


def _on_test(
    model: TwoTower, seen: Interactions, masked: Interactions | None, test: Interactions, k: int
) -> tuple[dict[str, float], dict[str, Any]]:
    from fastneg.training.event_evaluation import evaluate_model

    result = evaluate_model(model, train=seen, validation=masked, test=test, k=(k,))
    return dict(result.metrics), dict(result.counts)
