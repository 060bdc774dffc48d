"""Command lines with one odd value each, and the odd files that they name.

Every option of every command, taken from the program itself, meets every value of its kind.
"""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import typer

from fastneg.cli import app
from fastneg.training.settings import setting_names

NUMBERS = [
    "", "x", "-1", "0", "1.5", "nan", "inf", "1e400", "9" * 6000, f"-{'9' * 6000}", "\ud800", "1,",
    "a=b", "[1]", "none", "2147483648", "9223372036854775808", "true",
]  # fmt: skip
# options and settings that ask for work in proportion: not the numbers that ask for hours
WORK = {"--seeds", "epochs", "rounds", "patience", "--num-negatives", "refresh_every"}
SUFFIXES = (
    ".npz", ".npy", ".parquet", ".feather", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".toml",
    ".txt", ".csv.gz", ".zip", ".csv.xz",
)  # fmt: skip


class Lines:
    """The files of right command lines in a folder, and the lines.

    Args:
        folder: where they are written; outputs go to ``folder/out``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0
        g = np.random.default_rng(0)
        rows = {"user": g.integers(0, 30, 300), "item": g.integers(0, 24, 300)}
        self.rows = self._table("rows.parquet", rows)
        some = {name: column[:200] for name, column in rows.items()}
        self.train = self._table("train.parquet", some)
        vectors = g.normal(size=(30, 4)).astype(np.float32)
        np.save(folder / "queries.npy", vectors)
        np.save(folder / "items.npy", vectors[:24])
        self.things = self._table(
            "things.parquet", {"item": np.arange(24), "size": vectors[:24, 0]}
        )
        self.people = self._table("people.parquet", {"user": np.arange(30), "age": vectors[:, 0]})

    def _table(self, name: str, columns: dict[str, Any]) -> Path:
        pq.write_table(pa.table(columns), self.folder / name)
        return self.folder / name

    def out(self) -> Path:
        """A place that no other line writes to."""
        self._made += 1
        return self.folder / "out" / f"o{self._made}"

    def right(self, command: str) -> dict[str, str]:
        """Options that work, by name; arguments under ''."""
        rows, train, f = str(self.rows), str(self.train), self.folder
        vectors = {"--queries": str(f / "queries.npy"), "--items": str(f / "items.npy")}
        return {
            "train": {"--train": rows, "--recipe": "bpr", "--out": str(self.out())},
            "mine": {**vectors, "--out": str(self.out()), "--window": "1 5",
                     "--num-negatives": "2"},
            "diagnose": {**vectors, "--positives": train, "--window": "1 5", "--held-out": rows},
            "evaluate": {"--train": train, "--test": rows, "--user-vectors": vectors["--queries"],
                         "--item-vectors": vectors["--items"]},
            "sample": {"--interactions": rows, "--out": f"{self.out()}.parquet"},
            "demo": {"--dataset": "generated", "--out": str(self.out()), "--seeds": "1"},
            "doctor": {}, "show": {"": "bpr"},
        }[command]  # fmt: skip


def commands() -> dict[str, Any]:
    """Every command by its name, as typer made it."""
    root: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, one in root.commands.items():
        found |= getattr(one, "commands", {name: one})
    return found


def words(command: str, options: dict[str, str]) -> list[str]:
    """The words of a command line."""
    line = ["recipes", command] if command == "show" else [command]
    for name, value in options.items():
        split = value.split() if name == "--window" else [value]
        line += [name, *split] if name else [value]
    if command == "train":
        line += ["--set", "epochs=1", "--set", "dim=4", "--set", "device=cpu", "--quiet"]
    return line


def odd_files(lines: Lines) -> list[Path]:
    """Files that are empty, noise, or cut off, one of each kind by its suffix; folders; nothing."""
    folder = lines.folder / "odd"
    folder.mkdir()
    noise = np.random.default_rng(1).bytes(300)
    found = [folder, folder / "no-such-file", folder / "pipe"]
    os.mkfifo(found[-1])  # never a device: what is written would replace it
    whole = _whole(lines, folder)
    for suffix in SUFFIXES:
        contents = {"empty": b"", "noise": noise, "nul": bytes(64)}
        if suffix in whole:
            data = whole[suffix]
            middle = len(data) // 2
            contents |= {
                "cut": data[:middle], "bit": data[:middle] + b"\xff" + data[middle + 1 :],
                "head": b"\xff" * 8 + data[8:],
            }  # fmt: skip
        for kind, data in contents.items():
            found.append(folder / f"{kind}{suffix}")
            found[-1].write_bytes(data)
        found.append(folder / f"folder{suffix}")
        found[-1].mkdir()
    return found


def _whole(lines: Lines, folder: Path) -> dict[str, bytes]:
    """The bytes of good files of some kinds."""
    from scipy import sparse

    table = pq.read_table(lines.rows)
    place = folder / "whole"
    place.mkdir()
    sparse.save_npz(place / "a.npz", sparse.csr_matrix(np.eye(30, 24)))
    feather.write_feather(table, place / "a.feather")
    text = "user,item\n" + "".join(f"u{k % 7},i{k % 5}\n" for k in range(50))
    with gzip.open(place / "a.csv.gz", "wt") as packed:
        packed.write(text)
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        archive.writestr("a.csv", text)
    found = {
        name: (place / f"a{name}").read_bytes() for name in (".npz", ".feather", ".csv.gz", ".zip")
    }
    found[".parquet"] = lines.rows.read_bytes()
    found[".npy"] = (lines.folder / "queries.npy").read_bytes()
    found[".csv"] = text.encode()
    return found


def walk(command: str, lines: Lines, files: list[Path]) -> Iterator[list[str]]:
    """Command lines that differ from the right one in one option."""
    yield words(command, lines.right(command))
    for parameter in commands()[command].params:
        name = max(parameter.opts, key=len)
        name = name if name.startswith("-") else ""  # an argument
        if getattr(parameter, "is_flag", False):
            if name != "--help":
                yield [*words(command, lines.right(command)), name]
            continue
        if name == "--set":
            continue
        place = name == "--recipe" or any(
            kind in (parameter.metavar or "") for kind in ("FILE", "DIR")
        )
        values = [*NUMBERS, *map(str, files)] if place else NUMBERS
        for value in values:
            if name in WORK and value.isdigit() and int(value[:9]) > 1000:
                continue
            yield words(command, {**lines.right(command), name: value})


def walk_settings(lines: Lines) -> Iterator[list[str]]:
    """Lines that set one setting to one odd value, and words that set none."""
    for name in (*setting_names(), "no-such"):
        for value in NUMBERS:
            if name in WORK and value.isdigit() and int(value[:9]) > 1000:
                continue
            yield [*words("train", lines.right("train")), "--set", f"{name}={value}"]
    for word in ("", "=", "dim", "=3", "\ud800=1", "9" * 6000):
        yield [*words("train", lines.right("train")), "--set", word]
