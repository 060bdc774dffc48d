"""Folders changed by someone who computes checksums too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastneg import files


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another manifest, with a checksum that fits."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256", None)
    change(manifest)
    (folder / "manifest.json").write_text(files.manifest_text(manifest))


def set_fact(folder: Path, name: str, value: Any) -> None:
    """Another value of the manifest."""
    forge(folder, lambda manifest: manifest.__setitem__(name, value))


def renew(folder: Path, name: str) -> None:
    """The manifest takes a changed file for the one that was written."""
    entry = files.entry_of(folder / name)
    forge(folder, lambda manifest: manifest["files"].__setitem__(name, entry))


def put_array(folder: Path, name: str, array: np.ndarray) -> None:
    """Another array in the place of one, and a manifest that says so."""
    np.save(folder / f"{name}.npy", array)
    said = {"dtype": array.dtype.str, "shape": list(array.shape)}
    forge(folder, lambda manifest: manifest["arrays"].__setitem__(name, said))
    renew(folder, f"{name}.npy")
