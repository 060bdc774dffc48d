"""The folder that a trained model is: written by ``train_recipe``, read by ``load_model``.

====================  ========================================================================
``model.safetensors``  the weights; the towers' shape as JSON in the header
``config.toml``        recipe, seed, all settings
``item_vectors.npy``   float32 [items, D], in the order of ``items.parquet``
``user_vectors.npy``   float32 [users, D], in the order of ``users.parquet``
``items.parquet``      code, id
``users.parquet``      code, id
``metrics.json``       validation and test metrics, seconds, epoch, settings, counts
``metrics.jsonl``      one line per epoch
``checkpoints/``       what ``--resume`` reads
``*_features.npz``     the feature tables of the towers that have one; of an event's context the
                       columns and categories alone
``user_history.npz``   the items of each user that the query tower averages, where it does
====================  ========================================================================
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastneg.archives import load_npz
from fastneg.checks import AnyArray, as_choice
from fastneg.data.events import Events
from fastneg.data.features import FeatureTable
from fastneg.errors import CheckpointError, FastnegError, FileFormatError, system_reason
from fastneg.interactions import Interactions
from fastneg.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    replacing,
    save_checkpoint,
    write_json,
    write_text,
)
from fastneg.training.config import to_toml
from fastneg.training.history import UserHistory
from fastneg.training.towers import TwoTower


def prepare_folder(out: str | Path) -> Path:
    """The folder, made and found writable before any work starts.

    Raises:
        FastnegError: it cannot be made or written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".fastneg-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise FastnegError(
            f"the output folder {folder} cannot be written: {system_reason(error)}"
        ) from error
    return folder


def write_array(path: Path, array: AnyArray) -> None:
    """Write an .npy file under a temporary name and rename it."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def write_ids(path: Path, ids: AnyArray) -> None:
    """Write a Parquet file with columns ``code`` (int64) and ``id``."""
    table = pa.table({"code": pa.array(np.arange(len(ids))), "id": pa.array(ids.tolist())})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def write_model(
    folder: Path,
    model: TwoTower,
    interactions: Interactions,
    *,
    config: dict[str, Any],
    user_features: FeatureTable | None = None,
    item_features: FeatureTable | None = None,
) -> None:
    """Weights, vectors, id maps, feature tables and ``config.toml``; each renamed into place.

    Where the queries are events there are no vectors of users, and the ids are the known users'.
    """
    events = interactions if isinstance(interactions, Events) else None
    context = None if events is None else events.context.select([])
    for side, table in (("user", user_features), ("item", item_features), ("context", context)):
        path = folder / f"{side}_features.npz"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            _write_features(path, table)
    _write_history(folder / "user_history.npz", model)
    save_checkpoint(
        folder / "model.safetensors",
        Checkpoint(dict(model.state_dict()), {"towers": model.config()}),
    )
    write_array(folder / "item_vectors.npy", model.item_vectors().cpu().numpy())
    if events is None:
        write_array(folder / "user_vectors.npy", model.user_vectors().cpu().numpy())
    else:
        (folder / "user_vectors.npy").unlink(missing_ok=True)
    known = None if events is None else events.num_known_users
    write_ids(folder / "users.parquet", interactions.user_ids[:known])
    write_ids(folder / "items.parquet", interactions.item_ids)
    write_text(folder / "config.toml", to_toml(config))


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write ``metrics.json``."""
    write_json(folder / "metrics.json", metrics)


def load_config(folder: str | Path) -> dict[str, Any]:
    """``config.toml`` of a trained model: recipe, seed, and the table ``settings``.

    Raises:
        FileFormatError: no such file, or not TOML.
    """
    path = Path(folder) / "config.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read as TOML ({error})") from error


def load_model(folder: str | Path) -> TwoTower:
    """The trained towers of a folder, on the CPU, in evaluation mode.

    Raises:
        FileFormatError: no model there, or a damaged one.
        CheckpointError: weights that do not fit the towers' shape.
    """
    place = Path(folder)
    saved = load_checkpoint(place / "model.safetensors")
    tables: dict[str, Any] = {
        f"{side}_features": load_features(place, side) for side in ("user", "item", "context")
    }
    tables["user_history"] = _read_history(place / "user_history.npz")
    try:
        shape = {k: v for k, v in saved.facts["towers"].items() if v is not None}
        model = TwoTower(**shape, **tables)
        model.load_state_dict(saved.tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{place / 'model.safetensors'}: the weights do not fit the towers ({error})"
        ) from error
    model.eval()
    return model


def load_features(folder: str | Path, side: str) -> FeatureTable | None:
    """A feature table of a trained model, None where it has none.

    Rows that the model has never seen are encoded by it: ``FeatureTable.from_table(new, ids=...,
    like=load_features(folder, "item"))`` is what ``model.embed_items(features=...)`` takes.

    Args:
        folder: a trained model.
        side: ``"item"``, ``"user"``, or ``"context"`` (of events; without rows).

    Raises:
        FileFormatError: a damaged file.
        FastnegError: another side.
    """
    as_choice(side, ("user", "item", "context"), call="load_features", name="side")
    path = Path(folder) / f"{side}_features.npz"
    return _read_features(path) if path.is_file() else None


def _write_history(path: Path, model: TwoTower) -> None:
    history = model.user_tower.history
    if history is None:
        path.unlink(missing_ok=True)
        return
    arrays = {"indptr": history.indptr.cpu().numpy(), "items": history.items.cpu().numpy()}
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def _read_history(path: Path) -> UserHistory | None:
    if not path.is_file():
        return None
    try:
        stored = load_npz(path, call="read")
        return UserHistory(stored["indptr"], stored["items"])
    except (ValueError, KeyError) as error:
        raise FileFormatError(f"{path}: not a history, or a damaged one ({error})") from error


def _write_features(path: Path, table: FeatureTable) -> None:
    arrays, facts = table.state()
    with replacing(path) as temporary, temporary.open("wb") as handle:
        stored: dict[str, Any] = {f"array/{name}": array for name, array in arrays.items()}
        np.savez(handle, facts=np.array(json.dumps(facts)), **stored)


def _read_features(path: Path) -> FeatureTable:
    try:
        stored = load_npz(path, call="read")
        facts = json.loads(str(stored.pop("facts")))
        arrays = {name.removeprefix("array/"): array for name, array in stored.items()}
    except (ValueError, KeyError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a feature table, or a damaged one ({error})") from error
    return FeatureTable.from_state(arrays, facts)
