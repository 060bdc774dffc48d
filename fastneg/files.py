"""Files of folders that fastneg wrote: plain names, sizes, checksums, and one writer at a time.

A manifest says which files a folder holds. It may come from elsewhere, so a name in it is a plain
name of a regular file inside the folder, and nothing that it says is believed unseen: sizes and
SHA-256 checksums are taken again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fastneg.errors import FileFormatError

try:
    import fcntl
except ImportError:  # Windows: nothing guards a folder against a second process there
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"
CHECKSUM = "sha256"  # of a manifest, in the manifest
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PIECE = 4 << 20


def is_plain_name(name: Any) -> bool:
    """Whether a name that a file gives is one that fastneg writes: no separators, no dots first."""
    return isinstance(name, str) and len(name) <= 255 and _PLAIN.fullmatch(name) is not None


def refuse_special(path: Path) -> None:
    """Raise where a name that is to be written is no regular file's.

    A device, a pipe or a link among devices would be gone for every program of the machine.

    Raises:
        OSError: it is one of these, or cannot be looked at.
    """
    with contextlib.suppress(FileNotFoundError):
        kind = path.stat().st_mode
        special = not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))  # the system refuses folders
        if special or (path.is_symlink() and path.absolute().parent == Path("/dev")):
            reason = "it is a device or a pipe, and would be replaced; give a file"
            raise OSError(errno.EINVAL, reason, str(path))


def replace_file(temporary: Path, path: Path) -> None:
    """Rename a finished file to its name; only a regular file is replaced.

    Raises:
        OSError: it cannot be renamed, or something else has the name.
    """
    refuse_special(path)
    temporary.replace(path)


def file_inside(folder: Path, name: Any) -> Path:
    """The path of a regular file inside a folder, by the name that a manifest gives.

    Raises:
        FileFormatError: the name is not a plain one, or a link leads out of the folder, or it is
            no regular file (a device or a pipe could be read for ever).
        FileNotFoundError, OSError: there is no such file, or it cannot be looked at.
    """
    if not is_plain_name(name):
        raise FileFormatError(f"{name!r} is not a plain file name, so it may lie outside {folder}")
    path = folder / str(name)
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if path.resolve(strict=True).parent != folder.resolve():
            raise FileFormatError(f"{path} is a link out of the folder; copy the file into it")
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileFormatError(f"{path} is not a regular file")
    return path


def checksum_of(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256 in hex) of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its length and its checksum."""
    length, checksum = checksum_of(path)
    return {"bytes": length, CHECKSUM: checksum}


def fault_of(path: Path, entry: Any, *, checksums: bool = True) -> str | None:
    """What is wrong with a file against its entry in a manifest; None if nothing is.

    Args:
        path: from ``file_inside``.
        entry: ``entry_of`` the file when it was written.
        checksums: False compares lengths alone.

    Raises:
        OSError: it cannot be read.
    """
    if not (
        isinstance(entry, Mapping)
        and type(entry.get("bytes")) is int
        and isinstance(entry.get(CHECKSUM), str)
    ):
        return "the manifest has no checksum of it"
    length = path.stat().st_size
    if length != entry["bytes"]:
        return f"it has {length} bytes, not the {entry['bytes']} that were written"
    if checksums and checksum_of(path) != (entry["bytes"], entry[CHECKSUM]):
        return "its checksum is not that of what was written"
    return None


def write_pieces(file: IO[bytes], pieces: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write pieces and return the entry of the file, without reading it again."""
    digest, length = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        length += len(piece)
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]
    return {"bytes": length, CHECKSUM: digest.hexdigest()}


def array_pieces(array: npt.NDArray[Any]) -> Iterator[bytes | memoryview]:
    """The bytes of an .npy file, in pieces."""
    header, array = io.BytesIO(), np.ascontiguousarray(array)
    facts = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(header, facts)
    yield header.getvalue()
    if array.size:
        data = array.view(np.uint8).data.cast("B")
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, allow_nan=False).encode()


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest with its own checksum, as JSON."""
    checksum = hashlib.sha256(_canonical(manifest)).hexdigest()
    return json.dumps({**manifest, CHECKSUM: checksum}, indent=1, allow_nan=False) + "\n"


def parse_manifest(path: Path) -> dict[str, Any]:
    """The JSON of a manifest, whose own checksum ``take_checksum`` compares.

    Raises:
        OSError: it cannot be read.
        FileFormatError: it is not the JSON of a mapping.
    """
    try:
        manifest = json.loads(file_inside(path.parent, path.name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is damaged: {str(error) or 'nested too deeply'}") from error
    if not isinstance(manifest, dict):
        raise FileFormatError(f"{path} is damaged: it is no mapping")
    return manifest


def take_checksum(manifest: dict[str, Any]) -> bool:
    """Take a manifest's own checksum out of it; whether it fits the rest."""
    checksum = manifest.pop(CHECKSUM, None)
    try:
        return bool(checksum == hashlib.sha256(_canonical(manifest)).hexdigest())
    except (ValueError, RecursionError):  # NaN, or too deep to be one that was written
        return False


class FolderLock:
    """The lock of a folder that is written to: a file in it, held until ``close``.

    The file stays where it is: removing it while another process opens it would let both in.

    Args:
        path: of the lock file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Take the lock; False where another process, or another part of this one, has it.

        Raises:
            OSError: the file cannot be made.
        """
        file = self.path.open("ab")
        held = fcntl is None
        if fcntl is not None:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours, there = os.fstat(file.fileno()), self.path.stat()
                held = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        if held:
            self._file = file
        else:
            file.close()
        return held

    def close(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None
