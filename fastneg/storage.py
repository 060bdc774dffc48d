"""Folders of arrays: NumPy files that can be memory-mapped, texts as Arrow files, a manifest.

A folder is written beside its place under a temporary name and renamed, so that a reader finds a
whole one or none.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.checks import AnyArray
from fastneg.errors import FileFormatError
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")

MANIFEST = "manifest.json"


def write_folder(
    folder: str | Path,
    *,
    call: str,
    kind: str,
    version: int,
    arrays: Mapping[str, AnyArray],
    texts: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write ``NAME.npy`` per array, ``NAME.arrow`` per column of texts, and the manifest.

    An older folder of the same kind is replaced; anything else in the way is left alone.

    Raises:
        FileFormatError: the folder cannot be written, or something else stands there.
    """
    target = Path(folder)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    if target.exists():
        if not target.is_dir():
            raise FileFormatError(f"{call}: {target} is a file; give a folder")
        if any(target.iterdir()) and _kind_of(target) != kind:
            raise FileFormatError(
                f"{call}: {target} holds other files; give a new folder, or one saved before"
            )
    manifest = {
        "kind": kind,
        "version": version,
        **facts,
        "arrays": {
            name: {"dtype": array.dtype.str, "shape": list(array.shape)}
            for name, array in arrays.items()
        },
        "texts": {name: len(column) for name, column in texts.items()},
    }
    try:
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        for name, column in texts.items():
            table = pa.table({name: column})
            with (
                pa.OSFile(str(temporary / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _put_in_place(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise FileFormatError(f"{call}: {target} cannot be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    old = target.parent / f".{target.name}.{secrets.token_hex(4)}.old"
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _kind_of(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest.get("kind") if isinstance(manifest, dict) else None


def is_saved_folder(path: str | Path) -> bool:
    """Does the folder carry a manifest?"""
    return (Path(path) / MANIFEST).is_file()


def _ask_for_huge_pages(array: AnyArray) -> None:
    """Far reads of a mapped table miss fewer page entries; without them nothing is lost."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)


class SavedFolder:
    """A folder that ``write_folder`` wrote; arrays are memory-mapped and read-only.

    Args:
        folder: where it is.
        call: who asks, for errors.
        kind: the kind it was written as.
        version: the version that the caller can read.

    Raises:
        FileFormatError: no manifest, another kind or version; later, arrays that are missing,
            truncated or not as the manifest says.
    """

    def __init__(self, folder: str | Path, *, call: str, kind: str, version: int) -> None:
        self.folder, self.call = Path(folder), call
        try:
            self.manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise FileFormatError(
                f"{call}: {self.folder} is not a saved folder: {MANIFEST}: {error.strerror}"
            ) from error
        except ValueError as error:
            raise self.damaged(MANIFEST, str(error)) from error
        if not isinstance(self.manifest, dict) or self.manifest.get("kind") != kind:
            raise FileFormatError(f"{call}: {self.folder} does not hold {kind}")
        if self.manifest.get("version") != version:
            raise FileFormatError(
                f"{call}: {self.folder} is of version {self.manifest.get('version')}; this fastneg "
                f"reads version {version}"
            )
        if not all(isinstance(self.manifest.get(name), dict) for name in ("arrays", "texts")):
            raise self.damaged(MANIFEST, "it lists no arrays")

    def damaged(self, name: str, reason: str) -> FileFormatError:
        """The error for a part of the folder that is not as it was written."""
        return FileFormatError(f"{self.call}: {self.folder / name} is damaged: {reason}")

    def array(self, name: str) -> AnyArray | None:
        """The array of that name, memory-mapped; None if none was written."""
        listed = self.manifest["arrays"].get(name)
        if listed is None:
            return None
        path = self.folder / f"{name}.npy"
        try:
            empty = 0 in listed["shape"]
            array = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
        except OSError as error:
            raise self.damaged(path.name, error.strerror or str(error)) from error
        except (ValueError, EOFError, TypeError, KeyError) as error:
            raise self.damaged(path.name, str(error).splitlines()[0]) from error
        if array.dtype.str != listed.get("dtype") or list(array.shape) != listed["shape"]:
            raise self.damaged(
                path.name, f"{array.dtype}, shape {array.shape}, is not what the manifest says"
            )
        _ask_for_huge_pages(array)
        return np.asarray(array)

    def text(self, name: str) -> Any | None:
        """The Arrow large strings of that name, memory-mapped; None if none were written."""
        length = self.manifest["texts"].get(name)
        if length is None:
            return None
        path = self.folder / f"{name}.arrow"
        try:
            with pa.memory_map(os.fspath(path)) as source:
                column = pa.ipc.open_file(source).read_all().column(0)
            texts = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
            texts.validate(full=True)
        except OSError as error:
            raise self.damaged(path.name, error.strerror or str(error)) from error
        except (pa.ArrowException, IndexError) as error:
            raise self.damaged(path.name, str(error).splitlines()[0]) from error
        if len(texts) != length or texts.type != pa.large_string() or texts.null_count:
            raise self.damaged(path.name, "it is not what the manifest says")
        return texts
