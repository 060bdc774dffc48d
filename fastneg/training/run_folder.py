"""The folder that a run writes: never over another run or a user's file, never by two at once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fastneg.errors import FastnegError, system_reason
from fastneg.files import FolderLock
from fastneg.training.distributed import Ranks
from fastneg.training.outputs import CHECKPOINTS, OUTPUTS, prepare_folder

LOCK = ".fastneg.lock"
LABELS = ("round", "refit")  # of a run's stages, ``<label>-<number>``


class RunFolder:
    """Where a run writes.

    Args:
        out: the folder; it need not be there.
        resume: go on with the run in it.
        overwrite: replace the run, and whatever has the name of an output, in it.
        call: the function that was called, for errors.
    """

    def __init__(self, out: str | Path, *, resume: bool, overwrite: bool, call: str) -> None:
        self.path, self.call = Path(out), call
        self.resume, self.overwrite = resume, overwrite

    def refuse(self) -> None:
        """Raise where something stands in the folder that this run must not replace.

        Raises:
            FastnegError: it does, or ``resume`` finds no run; nothing is touched.
        """
        if self.resume and self.overwrite:
            raise FastnegError(
                f"{self.call}: resume goes on with the run in {self.path} and overwrite replaces "
                "it; give one of them"
            )
        if self.overwrite:
            return
        there = [name for name in OUTPUTS if (self.path / name).exists()]
        if not there or (self.resume and CHECKPOINTS in there):
            return
        shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        if self.resume:
            raise FastnegError(
                f"{self.call}: {self.path} holds {shown} and no {CHECKPOINTS} to go on from; give "
                "another folder, or --overwrite (overwrite=True) to replace them"
            )
        raise FastnegError(
            f"{self.call}: {self.path} holds {shown}: give --resume (resume=True) to go on with "
            "the run there, --overwrite (overwrite=True) to replace it, or another folder"
        )

    @contextlib.contextmanager
    def held(self, ranks: Ranks) -> Iterator[None]:
        """Hold the folder, made and found writable, until the end; the first rank does, for all.

        Raises:
            FastnegError: on every rank: as ``refuse``; another run writes there; it cannot be
                written.
        """
        lock: FolderLock | None = None
        error: FastnegError | None = None
        if ranks.is_first:
            try:
                self.refuse()
                prepare_folder(self.path)
                lock = self._lock()
            except FastnegError as raised:
                error = raised
        text = ranks.from_first(None if error is None else str(error))
        if text is not None:
            raise error or FastnegError(text)
        try:
            yield
        finally:
            if lock is not None:
                with contextlib.suppress(OSError):
                    lock.path.unlink()
                lock.close()

    def _lock(self) -> FolderLock:
        lock = FolderLock(self.path / LOCK)
        try:
            held = lock.take()
        except OSError as error:
            raise FastnegError(
                f"{self.call}: {lock.path} cannot be written: {system_reason(error)}"
            ) from error
        if not held:
            raise FastnegError(
                f"{self.call}: another run writes to {self.path}; wait for it, or give another "
                "folder"
            )
        try:
            self.refuse()  # what another run has written since
        except FastnegError:
            lock.close()
            raise
        return lock

    def clear(self) -> None:
        """Remove what an earlier run wrote; files of other names stay.

        Raises:
            FastnegError: something cannot be removed.
        """
        try:
            for name in OUTPUTS:
                if name != CHECKPOINTS:
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise FastnegError(
                f"{self.call}: {error.filename} cannot be replaced: {system_reason(error)}"
            ) from error
        for label in LABELS:
            remove_stages(self.path / CHECKPOINTS, label)


def remove_stages(folder: Path, label: str, *, after: int = 0) -> None:
    """Remove the checkpoints, lists and jobs of the stages ``<label>-<number>`` after a number.

    Raises:
        FastnegError: something cannot be removed.
    """
    try:
        for path in sorted(folder.glob(f"{label}-*")):
            number = path.name.removeprefix(f"{label}-").split("-")[0].split(".")[0]
            if not number.isdecimal() or int(number) <= after:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise FastnegError(f"cannot write to {folder}: {system_reason(error)}") from error
