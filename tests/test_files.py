"""What is written replaces regular files only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fastneg.errors import FastnegError
from fastneg.files import refuse_special, replace_file
from fastneg.training.checkpoints import write_json


def test_a_pipe_is_not_replaced_by_what_is_written(tmp_path: Path) -> None:
    pipe, whole = tmp_path / "pipe", tmp_path / "whole"
    os.mkfifo(pipe)
    whole.write_text("{}")
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for place in (pipe, link):
        with pytest.raises(OSError, match="device or a pipe"):
            replace_file(whole, place)
        with pytest.raises(FastnegError, match=r"pipe, and would be replaced; give a file$"):
            write_json(place, {})
        assert stat.S_ISFIFO(place.stat().st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {"pipe", "whole", "link"}
    replace_file(whole, tmp_path / "new")
    assert (tmp_path / "new").read_text() == "{}"


def test_links_among_devices_are_no_place_for_a_file() -> None:
    for name in ("/dev/null", "/dev/stdout"):  # looked at only
        with pytest.raises(OSError, match="device or a pipe"):
            refuse_special(Path(name))
