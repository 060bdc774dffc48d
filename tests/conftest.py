"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fastneg", deadline=None)  # a first call may compile a kernel
settings.load_profile("fastneg")


def _data_folder() -> Path | None:
    named = os.environ.get("FASTNEG_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real interactions; tests that need it skip where it is missing."""
    folder = _data_folder()
    if folder is None:
        pytest.skip("no real interactions: set FASTNEG_DATA to a folder with gowalla, ml-1m, ...")
    return folder
