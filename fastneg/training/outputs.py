"""The folder that a trained model is: written by ``train_recipe``, read by ``load_model``.

====================  ========================================================================
``model.safetensors``  the weights; the towers' shape as JSON in the header, and the checksums of
                       the files beside it
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastneg.archives import load_npz
from fastneg.checks import AnyArray, as_choice, as_flag, as_path
from fastneg.data.events import Events
from fastneg.data.features import FeatureTable
from fastneg.errors import (
    CheckpointError,
    FastnegError,
    FileFormatError,
    one_line,
    said_by,
    system_reason,
)
from fastneg.files import entry_of, fault_of, file_inside
from fastneg.interactions import Interactions
from fastneg.training.checkpoints import (
    FORMAT_VERSION,
    WITHOUT_CHECKSUM,
    Checkpoint,
    checkpoint_facts,
    load_checkpoint,
    replacing,
    save_checkpoint,
    write_json,
    write_text,
)
from fastneg.training.config import to_toml
from fastneg.training.history import UserHistory
from fastneg.training.towers import TwoTower

CHECKPOINTS = "checkpoints"
_MODEL, _FILES = "model.safetensors", "files"
_READ = ("user_features.npz", "item_features.npz", "context_features.npz", "user_history.npz")
_BESIDE = (*_READ, "item_vectors.npy", "user_vectors.npy", "items.parquet", "users.parquet")
OUTPUTS = (_MODEL, "config.toml", *_BESIDE, "metrics.json", "metrics.jsonl", CHECKPOINTS)


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
    write_array(folder / "item_vectors.npy", model.item_vectors().cpu().numpy())
    if events is None:
        write_array(folder / "user_vectors.npy", model.user_vectors().cpu().numpy())
    else:
        (folder / "user_vectors.npy").unlink(missing_ok=True)
    known = None if events is None else events.num_known_users
    write_ids(folder / "users.parquet", interactions.user_ids[:known])
    write_ids(folder / "items.parquet", interactions.item_ids)
    beside = {name: entry_of(folder / name) for name in _BESIDE if (folder / name).is_file()}
    save_checkpoint(  # last, with the checksums of all others
        folder / _MODEL,
        Checkpoint(dict(model.state_dict()), {"towers": model.config(), _FILES: beside}),
    )
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


def load_model(folder: str | Path, *, verify: bool = True) -> TwoTower:
    """The trained towers of a folder, on the CPU, in evaluation mode.

    Args:
        folder: that a run wrote.
        verify: whether to compare the checksums of the vectors and ids beside the model too, which
            reads them once; what the model is made of is compared in any case.

    Raises:
        FileFormatError: no model there, or a damaged one.
        CheckpointError: weights that do not fit the towers' shape.
    """
    call = "load_model"
    place = as_path(folder, call=call, name="folder")
    verify = as_flag(verify, call=call, name="verify")
    with said_by(call, "load_features"):
        saved = load_checkpoint(place / _MODEL, versions=(WITHOUT_CHECKSUM, FORMAT_VERSION))
        _check_beside(place, saved.facts, _BESIDE if verify else _READ)
        tables: dict[str, Any] = {
            f"{side}_features": load_features(place, side) for side in ("user", "item", "context")
        }
        tables["user_history"] = _read_history(place / "user_history.npz")
        try:
            model = TwoTower(**saved.facts["towers"], **tables)
            model.load_state_dict(saved.tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{place / _MODEL}: the weights do not fit the towers ({one_line(error)})"
            ) from error
    model.eval()
    return model


def _check_beside(place: Path, facts: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise unless the files beside a model are those that were written with it.

    Those that no model is read from may be missing. Models of before checksums list none.
    """
    if _FILES not in facts:
        return
    listed = facts[_FILES] if isinstance(facts[_FILES], dict) else {}
    for name in names:
        path = place / name
        if not path.exists() and (name not in listed or name not in _READ):
            continue
        try:
            fault = fault_of(file_inside(place, name), listed.get(name))
        except OSError as error:
            raise FileFormatError(f"{path} is damaged: {error.strerror or error}") from error
        if fault is not None:
            raise FileFormatError(f"{path} is damaged, or another model's: {fault}")


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
    call = "load_features"
    as_choice(side, ("user", "item", "context"), call=call, name="side")
    place, name = as_path(folder, call=call, name="folder"), f"{side}_features.npz"
    with said_by(call, "FeatureTable.from_state"):
        if (place / _MODEL).is_file():
            _check_beside(place, checkpoint_facts(place / _MODEL), [name])
        return _read_features(place / name) if (place / name).is_file() else None


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
    stored = load_npz(path, call="load_model")
    try:
        return UserHistory(stored["indptr"], stored["items"])
    except (ValueError, KeyError) as error:
        raise FileFormatError(f"{path}: not a history, or a damaged one ({error})") from error


def _write_features(path: Path, table: FeatureTable) -> None:
    arrays, facts = table.state()
    with replacing(path) as temporary, temporary.open("wb") as handle:
        stored: dict[str, Any] = {f"array/{name}": array for name, array in arrays.items()}
        np.savez(handle, facts=np.array(json.dumps(facts)), **stored)


def _read_features(path: Path) -> FeatureTable:
    stored = load_npz(path, call="load_features")
    try:
        facts = json.loads(str(stored.pop("facts")))
    except (KeyError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not a feature table, or a damaged one ({error})") from error
    arrays = {name.removeprefix("array/"): array for name, array in stored.items()}
    return FeatureTable.from_state(arrays, facts)
