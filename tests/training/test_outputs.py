"""A trained model's folder: what was damaged or exchanged in it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from fastneg.data.features import FeatureTable
from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError, FileFormatError
from fastneg.recipes import train_recipe
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.outputs import load_features, load_model
from tests.training.test_trainer import assert_same_weights, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train, validation = hold_out_validation(
        generate_dataset(60, 80, positives_per_user=16, seed=1).interactions
    )
    table = {"id": np.arange(80), "kind": np.array(["a", "b"] * 40)}
    items = FeatureTable.from_table(table, ids=train.item_ids)
    settings: dict[str, Any] = {
        "epochs": 1, "dim": 4, "device": "cpu", "history": "own", "batch_size": 256,
    }  # fmt: skip
    out = tmp_path_factory.mktemp("model") / "out"
    train_recipe(train, validation, recipe="bpr", settings=settings, item_features=items, out=out)
    return out


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "out"))


READ = ["model.safetensors", "item_features.npz", "user_history.npz"]
BESIDE = ["item_vectors.npy", "user_vectors.npy", "items.parquet", "users.parquet"]


@pytest.mark.parametrize("name", [*READ, *BESIDE])
def test_a_flipped_bit_is_seen(name: str, model: Path) -> None:
    path = model / name
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 30)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(FastnegError) as caught:
            load_model(model)
        assert name in str(caught.value)
        if name in READ:
            with pytest.raises(FastnegError):
                load_model(model, verify=False)
        else:
            load_model(model, verify=False)
    if name == "item_features.npz":
        with pytest.raises(FileFormatError, match="is damaged, or another model's"):
            load_features(model, "item")
    path.write_bytes(content)
    load_model(model)


def test_what_may_be_missing(model: Path) -> None:
    for name in BESIDE:
        (model / name).unlink()
    whole = weights(load_model(model))
    (model / "item_features.npz").unlink()
    with pytest.raises(FileFormatError, match=r"item_features\.npz is damaged: No such file"):
        load_model(model)
    with pytest.raises(FileFormatError, match=r"item_features\.npz is damaged: No such file"):
        load_features(model, "item")
    assert whole


def test_another_models_files_are_refused(model: Path, folder: Path) -> None:
    shutil.copy(model / "item_features.npz", model / "user_features.npz")
    with pytest.raises(FileFormatError, match="the manifest has no checksum of it"):
        load_model(model)
    (model / "user_features.npz").unlink()
    (model / "item_features.npz").rename(folder.parent / "elsewhere.npz")
    (model / "item_features.npz").symlink_to(folder.parent / "elsewhere.npz")
    with pytest.raises(FileFormatError, match="is a link out of the folder"):
        load_model(model)


def test_a_model_of_before_checksums_is_read(model: Path) -> None:
    path = model / "model.safetensors"
    read = load_checkpoint(path)
    expected = weights(load_model(model))
    facts = {"version": 1, "towers": read.facts["towers"]}
    save_file(read.tensors, path, metadata={"fastneg": json.dumps(facts)})
    assert_same_weights(weights(load_model(model)), expected)
    assert load_features(model, "item") is not None
    facts["version"] = 3
    save_file(read.tensors, path, metadata={"fastneg": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="checkpoint version 3; this fastneg reads 1 and 2"):
        load_model(model)
