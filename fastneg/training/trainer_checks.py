"""What a ``Trainer`` is given, looked at before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastneg.checks import (
    as_flag,
    as_integer,
    as_name,
    as_path,
    as_progress,
    check_functions,
    check_kind,
)
from fastneg.same_codes import check_interactions, same_ids
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.protocol import check_held_out
from fastneg.training.settings import Settings
from fastneg.training.source_data import SourceData
from fastneg.training.towers import TwoTower


def check_objects(
    call: str,
    *,
    model: Any,
    train: Any,
    settings: Any,
    validation: Any,
    hard: Any,
    data: Any,
    stage: Any,
    progress: Any,
    on_step: Any,
) -> None:
    """Raise on objects of other kinds than ``Trainer`` takes, and on codes that differ."""
    check_kind(call, TwoTower, "a TwoTower (rounds.build_model makes one)", model=model)
    check_kind(call, Settings, "Settings", settings=settings)
    check_interactions(call, train=train, optional={"validation": validation})
    check_held_out(call, train, validation=validation)
    same_ids(call, train, **model.tables)
    check_kind(call, (HardNegatives, type(None)), "mined lists", hard=hard)
    check_kind(call, SourceData, "SourceData", data=data)
    as_name(stage, call=call, name="stage")
    check_functions(call, on_step=on_step)
    if progress is not None:
        as_progress(progress, call=call)


def check_paths(call: str, **paths: Any) -> dict[str, Path]:
    """Those that are given, by name."""
    return {k: as_path(v, call=call, name=k) for k, v in paths.items() if v is not None}


def check_fit(call: str, epochs: Any, resume: Any, starting: Any) -> tuple[int | None, bool]:
    """The number of epochs, if one is given, and whether to resume."""
    check_functions(call, starting=starting)
    if epochs is not None:
        epochs = as_integer(epochs, call=call, name="epochs", minimum=1)
    return epochs, as_flag(resume, call=call, name="resume")
