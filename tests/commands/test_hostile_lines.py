"""A command line with any odd value ends in one line on stderr and exit code 2, or it works.

``FASTNEG_HOSTILE=full`` tries every value on every option (half an hour).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import Runner
from tests.commands.hostile_lines import Lines, commands, odd_files, walk, walk_settings, words

FULL = os.environ.get("FASTNEG_HOSTILE") == "full"
NOT_WALKED = {"demo": "trains for a minute with right options; test_cli.py has its errors"}


def some(lines: Iterator[list[str]], one_in: int) -> Iterator[list[str]]:
    """Every n-th line, the first of them told by the option, so that other values meet others."""
    for place, line in enumerate(lines):
        name = next((word for word in reversed(line) if word.startswith("--")), "")
        if FULL or (place + zlib.crc32(name.encode())) % one_in == 0:
            yield line


def check(fastneg: Runner, line: list[str]) -> None:
    ran = fastneg(*line)
    told = [ascii(word)[:80] for word in line]
    assert ran.code in (0, 2), (told, ran)
    if ran.code == 2:
        errors = [one for one in ran.err.splitlines() if not one.startswith("warning: ")]
        assert len(errors) == 1, (told, ran.err)
        assert errors[0].startswith("error: "), (told, ran.err)
        assert len(errors[0]) < 2000, (told, ran.err)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    monkeypatch.chdir(tmp_path)  # what is written to a relative path stays in the folder
    return Lines(tmp_path)


@pytest.mark.parametrize("command", sorted(set(commands()) - set(NOT_WALKED)))
@pytest.mark.filterwarnings("ignore")
def test_every_option(command: str, lines: Lines, fastneg: Runner) -> None:
    right = fastneg(*words(command, lines.right(command)))
    assert right.code == 0, right
    for line in some(walk(command, lines, odd_files(lines)), 23):
        check(fastneg, line)


@pytest.mark.filterwarnings("ignore")
def test_every_setting(lines: Lines, fastneg: Runner) -> None:
    for line in some(walk_settings(lines), 11):
        check(fastneg, line)


@pytest.mark.filterwarnings("ignore")
def test_every_odd_file(lines: Lines, fastneg: Runner) -> None:
    for place, path in enumerate(odd_files(lines)):
        command, option = [("sample", "--interactions"), ("evaluate", "--item-vectors")][place % 2]
        check(fastneg, words(command, {**lines.right(command), option: str(path)}))
