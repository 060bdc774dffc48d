"""Folders of arrays: NumPy files that can be memory-mapped, texts as Arrow files, a manifest.

A folder is written beside its place under a temporary name and renamed, so that a reader finds a
whole one or none. The manifest has the length and the SHA-256 checksum of every file, and its own:
opening reads every byte once to compare them, which ``verify=False`` leaves out for maps too large
to read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastneg import files
from fastneg.archives import DAMAGE, map_npy
from fastneg.checks import AnyArray, as_flag, as_path, shown
from fastneg.errors import FileFormatError, one_line, system_reason
from fastneg.files import MANIFEST
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")

_NO_CHECKSUMS = 1  # version of the folders that have none


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
    target = as_path(folder, call=call, name="folder")
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
    entries: dict[str, Any] = {}
    try:
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            path = temporary / f"{name}.npy"
            with path.open("wb", buffering=0) as file:
                entries[path.name] = files.write_pieces(file, files.array_pieces(array))
        for name, column in texts.items():
            table = pa.table({name: column})
            path = temporary / f"{name}.arrow"
            with (
                pa.OSFile(str(path), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
            entries[path.name] = files.entry_of(path)
        text = files.manifest_text({**manifest, "files": entries})
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        _put_in_place(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = system_reason(error)
        raise FileFormatError(f"{call}: {target} cannot be written: {reason}") from error
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
        kind = files.parse_manifest(folder / MANIFEST).get("kind")
    except (OSError, FileFormatError):
        return None
    return kind if isinstance(kind, str) else None


def holds(folder: str | Path, kind: str) -> bool:
    """Does the folder's manifest say that it is of this kind?"""
    return _kind_of(Path(folder)) == kind


def is_saved_folder(path: str | Path) -> bool:
    """Does the folder carry a manifest?"""
    return (Path(path) / MANIFEST).is_file()


def _ask_for_huge_pages(array: AnyArray) -> None:
    """Random reads of a mapped table cause fewer TLB misses on huge pages. Failure is ignored."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)


class SavedFolder:
    """A folder that ``write_folder`` wrote; arrays are memory-mapped and read-only.

    Args:
        folder: where it is.
        call: the function that was called, for errors.
        kind: the kind it was written as.
        version: the version that the caller can read; folders of version 1 have no checksums, and
            are opened with ``verify=False`` alone.
        verify: whether to compare the checksums of all arrays, which reads them once. Lengths, the
            manifest's checksum and those of texts are compared in any case.

    Raises:
        FileFormatError: no manifest, another kind or version, files that are missing, truncated,
            changed, outside the folder; later, arrays that are not as the manifest says.
    """

    def __init__(
        self, folder: str | Path, *, call: str, kind: str, version: int, verify: bool = True
    ) -> None:
        self.folder, self.call = as_path(folder, call=call, name="folder"), call
        verify = as_flag(verify, call=call, name="verify")
        try:
            self.manifest = files.parse_manifest(self.folder / MANIFEST)
        except OSError as error:
            raise FileFormatError(
                f"{call}: {self.folder} is not a saved folder: {MANIFEST}: {error.strerror}"
            ) from error
        except FileFormatError as error:
            raise FileFormatError(f"{call}: {error}") from error
        if self.manifest.get("kind") != kind:
            raise FileFormatError(f"{call}: {self.folder} does not hold {kind}")
        found = self.manifest.get("version")
        self._has_checksums = found != _NO_CHECKSUMS
        if not self._has_checksums and verify:
            raise FileFormatError(
                f"{call}: {self.folder} is of version 1, which has no checksums; open it with "
                f"verify=False and save it again in version {version}"
            )
        if self._has_checksums and (type(found) is not int or found != version):
            raise FileFormatError(
                f"{call}: {self.folder} is of version {found!r}; this fastneg reads version "
                f"{version}"
            )
        if self._has_checksums and not files.take_checksum(self.manifest):
            raise self.damaged(MANIFEST, "its checksum is not that of what was written")
        if not all(isinstance(self.manifest.get(name), dict) for name in ("arrays", "texts")):
            raise self.damaged(MANIFEST, "it lists no arrays")
        for name in self.manifest["arrays"]:
            self._check(f"{name}.npy", checksums=verify)
        for name in self.manifest["texts"]:  # what an Arrow file says of itself steers a parser
            self._check(f"{name}.arrow", checksums=True)

    def _check(self, name: str, *, checksums: bool) -> None:
        """Raise unless a file is there as it was written."""
        listed = self.manifest.get("files")
        entry = listed.get(name) if isinstance(listed, dict) else None
        try:
            path = files.file_inside(self.folder, name)
            fault = None
            if self._has_checksums:
                fault = files.fault_of(path, entry, checksums=checksums)
        except OSError as error:
            raise self.damaged(name, error.strerror or str(error)) from error
        except FileFormatError as error:
            raise FileFormatError(f"{self.call}: {self.folder}: {error}") from error
        if fault is not None:
            raise self.damaged(name, fault)

    def damaged(self, name: str, reason: str) -> FileFormatError:
        """The error for a part of the folder that is not as it was written."""
        return FileFormatError(f"{self.call}: {self.folder / name} is damaged: {reason}")

    def size(self, name: str) -> int:
        """A number of 1 or more that the manifest says, below 2^63.

        Raises:
            FileFormatError: it says none.
        """
        number = self.manifest.get(name)
        if type(number) is not int or not 1 <= number < 2**63:
            raise self.damaged(MANIFEST, f"{name} = {shown(number)}")
        return number

    def array(self, name: str) -> AnyArray | None:
        """The array of that name, memory-mapped; None if none was written."""
        listed = self.manifest["arrays"].get(name)
        if listed is None:
            return None
        path = self.folder / f"{name}.npy"
        try:
            array = map_npy(path)
        except DAMAGE as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise self.damaged(path.name, reason) from error
        says = (listed.get("dtype"), listed.get("shape")) if isinstance(listed, dict) else None
        if (array.dtype.str, list(array.shape)) != says:
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
            column.validate(full=True)  # before anything follows an offset
            texts = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        except OSError as error:
            raise self.damaged(path.name, error.strerror or str(error)) from error
        except (pa.ArrowException, IndexError) as error:
            raise self.damaged(path.name, str(error).splitlines()[0]) from error
        if len(texts) != length or texts.type != pa.large_string() or texts.null_count:
            raise self.damaged(path.name, "it is not what the manifest says")
        return texts
