"""The folder of a mining job: a lock, files that are there whole or not at all, a manifest.

A file is written under a temporary name, synced to the disk and renamed; then the manifest, which
has every file's length and checksum, is replaced in the same way. Whatever the manifest names is
therefore finished, and what it does not name does not count. One process at a time holds the lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.archives import load_npy
from fastneg.checks import AnyArray, fail
from fastneg.errors import FastnegError, FileFormatError, one_line, system_reason
from fastneg.files import (
    MANIFEST,
    FolderLock,
    file_inside,
    manifest_text,
    take_checksum,
    write_pieces,
)
from fastneg.files import fault_of as fault_of_file
from fastneg.mining.job_manifest import fault_of

KIND, FORMAT = "fastneg mined negatives", 1
LOG, LOCK = "log.jsonl", ".fastneg.lock"
_MAPPED = 4 << 20  # bytes of arrays from which they are mapped
_MADE_FIRST = r"engine-\w+\.npy|items\.parquet|log\.jsonl|\.fastneg\.lock|\..+\.tmp"
_MADE = rf"{_MADE_FIRST}|part-\d+\.parquet|expected-\d+\.npy|manifest\.json"

Entry = dict[str, Any]  # {"file": name, "bytes": length, "sha256": checksum}
Manifest = dict[str, Any]


def shard_name(number: int) -> str:
    """The name of a shard's file."""
    return f"part-{number:05d}.parquet"


def read_manifest(folder: Path, *, call: str) -> Manifest | None:
    """The manifest of a job; None where there is none.

    Raises:
        FileFormatError: it is damaged, not of a mining job, or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = one_line(error) if isinstance(error, ValueError) else "nested too deeply"
        raise FileFormatError(f"{call}: {path} is damaged: {reason}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise FileFormatError(f"{call}: {folder} holds something else than {KIND}")
    if manifest.get("format") != FORMAT:
        raise FileFormatError(
            f"{call}: {folder} is of format {manifest.get('format')}; this fastneg reads and "
            f"writes format {FORMAT}"
        )
    if not take_checksum(manifest):
        raise FileFormatError(f"{call}: {path} is damaged: its checksum does not fit")
    fault = fault_of(manifest)
    if fault is not None:
        raise FileFormatError(f"{call}: {path} is damaged: {fault}")
    return manifest


class JobFolder:
    """The files of one job.

    Args:
        folder: where they are.
        call: the function that was called, for errors.
    """

    def __init__(self, folder: str | Path, *, call: str) -> None:
        self.path, self.call = Path(folder), call
        self._was_locked = False  # by an earlier job, so that what stands here may be its
        self._is_ours = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, made if need be; an error before there is a manifest leaves nothing.

        Raises:
            FastnegError: another process holds it, or it cannot be made or written.
        """
        made, lock = not self.path.exists(), FolderLock(self.path / LOCK)
        try:
            self._was_locked = lock.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            held = lock.take()
        except OSError as error:
            raise FastnegError(
                f"{self.call}: the output folder {self.path} cannot be written: "
                f"{system_reason(error)}"
            ) from error
        if not held:
            fail(
                self.call,
                f"{self.path} is being written by another process; wait for it, or give another "
                "folder",
            )
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._undo(made)
            raise
        finally:
            lock.close()

    def _undo(self, made: bool) -> None:
        """After an error: a folder in which no job has begun is as it was before."""
        if self._is_ours and not (self.path / MANIFEST).exists():
            self.remove(first_only=True)
        elif not self._is_ours and not self._was_locked:
            (self.path / LOCK).unlink()
        if made and not self._names():
            self.path.rmdir()

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def refuse_other_files(self, *, resume: bool) -> None:
        """Raise unless the folder is empty or a job's; what a kill may leave is let through.

        Raises:
            FileFormatError: other files; with ``resume``, a manifest that cannot be gone on with.
        """
        try:
            manifest = read_manifest(self.path, call=self.call)
        except FileFormatError:
            if resume or KIND.encode() not in (self.path / MANIFEST).read_bytes():
                raise
            self._is_ours = True
            return
        left = _MADE_FIRST if self._was_locked else re.escape(LOCK)
        for name in self._names() if manifest is None else ():
            if not re.fullmatch(left, name):
                raise FileFormatError(
                    f"{self.call}: {self.path} holds other files ({name}) and no {MANIFEST}; give "
                    "a new folder"
                )
        self._is_ours = True

    def remove(self, *, first_only: bool = False) -> None:
        """Remove what a job made, the manifest last: until then the folder is known as a job's."""
        pattern = _MADE_FIRST if first_only else _MADE
        names = [name for name in self._names() if re.fullmatch(pattern, name)]
        for name in sorted(names, key=lambda name: name == MANIFEST):
            if name != LOCK or first_only:
                self._unlink(name)

    def _unlink(self, name: str) -> None:
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FileFormatError(
                f"{self.call}: {path} cannot be removed: {error.strerror or error}"
            ) from error

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove shards and sums that are not among ``names``, and temporary files."""
        wanted = set(names)
        for name in self._names():
            stray = re.fullmatch(r"part-\d+\.parquet|expected-\d+\.npy", name)
            if re.fullmatch(r"\..+\.tmp", name) or (stray and name not in wanted):
                self._unlink(name)

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> Entry:
        """Write a file whole: temporary name, sync, rename, sync of the folder.

        Raises:
            FileFormatError: the disk is full or fails; the file of before is still there.
        """
        path, temporary = self.path / name, self.path / f".{name}.tmp"
        try:
            with temporary.open("wb", buffering=0) as file:
                entry = write_pieces(file, pieces)
                os.fsync(file.fileno())
            temporary.replace(path)
            self._sync()
        except OSError as error:
            raise FileFormatError(
                f"{self.call}: {path} cannot be written: {system_reason(error)}. What was "
                "finished is kept, and the same call goes on from it"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return {"file": name, **entry}

    def _sync(self) -> None:
        if os.name != "posix":
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; it carries its own checksum."""
        self.write(MANIFEST, [manifest_text(manifest).encode()])

    def _inside(self, entry: Entry) -> Path:
        """The path of a file, which is a regular one in the folder and no link out of it.

        Raises:
            FileFormatError: it is not.
            OSError: it is not there.
        """
        try:
            return file_inside(self.path, entry["file"])
        except FileFormatError as error:
            raise FileFormatError(f"{self.call}: {error}") from error

    def is_whole(self, entry: Entry) -> bool:
        """Whether a file is there as it was written."""
        try:
            return fault_of_file(self._inside(entry), entry) is None
        except OSError:
            return False

    def read(self, entry: Entry) -> bytes:
        """The bytes of a file.

        Raises:
            FileFormatError: it is missing or not as it was written.
        """
        try:
            path = self._inside(entry)
            content = path.read_bytes()
        except OSError as error:
            raise FileFormatError(
                f"{self.call}: {self.path / entry['file']} cannot be read: {error.strerror}"
            ) from error
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise FileFormatError(
                f"{self.call}: {path} is damaged or foreign: its checksum is not the manifest's; "
                "mining into the folder again with the same arguments redoes it"
            )
        return bytes(content)

    def array(self, entry: Entry) -> AnyArray:
        """The array of an .npy file, memory-mapped, its checksum checked.

        Raises:
            FileFormatError: it is missing or not as it was written.
        """
        if not self.is_whole(entry):
            self.read(entry)  # says which
        mapped = entry["bytes"] >= _MAPPED
        return np.asarray(load_npy(self.path / entry["file"], call="read", mapped=mapped))

    def log(self, **facts: Any) -> None:
        """Add a line to the log: when and how long. It is no part of the result."""
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
        except OSError as error:
            raise FileFormatError(
                f"{self.call}: {self.path / LOG} cannot be written: {system_reason(error)}. "
                "What was finished is kept, and the same call goes on from it"
            ) from error

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of the log, oldest first; those that are damaged are left out."""
        lines = []
        with contextlib.suppress(OSError):
            for line in (self.path / LOG).read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    facts = json.loads(line)
                    lines += [facts] if isinstance(facts, dict) else []
        return lines
