"""Manifests and files of mining jobs, damaged or edited, checksum and all: one clear line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.mining.mined_folder import open_mined
from fastneg.mining.shards import mine_to_folder

RNG = np.random.default_rng(0)
QUERIES, ITEMS = (RNG.standard_normal((n, 4)).astype(np.float32) for n in (10, 50))
SETTINGS = {
    "item_ids": [f"i{k}" for k in range(50)], "shard_queries": 4, "max_per_item": 3,
    "search": "ivf", "window": (1, 5), "num_negatives": 2, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "job"
    mine_to_folder(QUERIES, ITEMS, folder, **SETTINGS)
    return folder


@pytest.fixture
def job(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "job"))


def edit(folder, place, value):
    """Change one value of the manifest and put a right checksum on it; ``del`` removes it."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    inner = manifest
    for step in place[:-1]:
        inner = inner[step]
    if value is KeyError:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    text = json.dumps(manifest, sort_keys=True).encode()
    manifest["sha256"] = hashlib.sha256(text).hexdigest()
    path.write_text(json.dumps(manifest))


EDITS = [
    (("shards", 0, "file"), "../../../etc/passwd"), (("shards", 0, "file"), 3),
    (("shards", 0, "file"), KeyError), (("shards", 0), "x"), (("shards",), None), (("shards",), []),
    (("shards", 1), None), (("shards", 0, "first_row"), -5), (("shards", 0, "num_rows"), 10**9),
    (("shards", 0, "tally"), "x"), (("shards", 0, "tally"), [-1]), (("shard_queries",), 0),
    (("shard_queries",), "x"), (("shard_queries",), True), (("report",), KeyError),
    (("report",), None), (("report", "num_queries"), KeyError), (("report", "other"), 1),
    (("report", "num_queries"), "x"), (("report", "num_queries"), 10**12),
    (("report", "num_items"), 10**12), (("report", "num_negatives"), 10**12),
    (("report", "num_negatives"), 0), (("report", "window"), 5), (("report", "window"), [1]),
    (("complete",), "x"), (("complete",), KeyError), (("inputs",), None), (("inputs", "items"), {}),
    (("inputs", "items", "shape"), []), (("inputs", "queries", "shape"), [10**12, 4]),
    (("inputs", "positives"), 3), (("item_ids",), 3), (("item_ids", "file"), "/etc/passwd"),
    (("expected",), 3), (("expected", "shards"), 99), (("engine",), None),
    (("engine", "facts"), {}), (("engine", "facts", "search"), 3), (("engine", "arrays"), 3),
    (("engine", "arrays", "centroids", "file"), "../x"), (("settings",), None),
    (("versions",), []), (("format",), 99), (("kind",), "something"),
]  # fmt: skip


@pytest.mark.parametrize("place_and_value", EDITS, ids=lambda one: f"{one[0]}={one[1]}")
def test_edited_manifests_are_refused(job, place_and_value):
    edit(job, *place_and_value)
    with pytest.raises(FileFormatError, match=r"^open_mined: "):
        open_mined(job).read()
    with pytest.raises(FileFormatError, match=r"^mine_to_folder: ") as caught:
        mine_to_folder(QUERIES, ITEMS, job, **SETTINGS)
    assert "\n" not in str(caught.value)


TEXTS = {
    "of another encoding": lambda text: b"\xff\xfe{" + text,
    "nested": lambda _: b"[" * 100_000,
    "empty": lambda _: b"",
    "a list": lambda _: b"[]",
    "a long number": lambda _: b'{"kind": ' + b"1" * 5_000 + b"}",
    "no number": lambda text: text.replace(b'"format": 1', b'"format": 1, "x": NaN'),
    "cut": lambda text: text[:-200],
    "without a checksum": lambda text: text.replace(b'"sha256"', b'"sha257"'),
    "of a lone surrogate": lambda text: text.replace(b'"format": 1', b'"format": 1, "\\ud800": 1'),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_manifests_of_other_bytes_are_refused(job, kind):
    path = job / "manifest.json"
    path.write_bytes(TEXTS[kind](path.read_bytes()))
    for call in (open_mined, lambda folder: mine_to_folder(QUERIES, ITEMS, folder, **SETTINGS)):
        with pytest.raises(FileFormatError) as caught:
            call(job)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["part-00000.parquet", "items.parquet"])
@pytest.mark.parametrize("what", ["bytes", "nothing", "a folder", "a link"])
def test_damaged_files_are_named(job, name, what):
    path = job / name
    if what == "bytes":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.unlink()
    if what == "a folder":
        path.mkdir()
    if what == "a link":
        path.symlink_to("/etc/passwd")
    faults = "cannot be read|is damaged|is not a regular file|is a link out of"
    with pytest.raises(FileFormatError, match=rf"^(open_mined|MinedFolder.*): .*{name} ({faults})"):
        open_mined(job).read()
    if what in ("a folder", "a link") and name.startswith("part"):
        with pytest.raises(FileFormatError, match=rf"^mine_to_folder: .*{name} is (not|a link)"):
            mine_to_folder(QUERIES, ITEMS, job, **SETTINGS)
    elif name.startswith("part"):  # mined again
        assert (mine_to_folder(QUERIES, ITEMS, job, **SETTINGS).read().items >= 0).all()


def test_a_damaged_log_is_left_alone(job):
    lines = b'\xff\n[1]\n{"seconds": "x"}\n{"block_rows": null}\n{"seconds": 2.5}\n'
    (job / "log.jsonl").write_bytes(lines)
    assert open_mined(job).report.seconds == 2.5


def test_a_stored_engine_is_looked_at_before_it_is_followed(job):
    edit(job, ("shards", 0), None)
    edit(job, ("report",), None)
    edit(job, ("complete",), False)
    for value in (10**9, 0, -1, "x"):
        edit(job, ("engine", "facts", "nprobe"), value)
        with pytest.raises(FastnegError, match="stored nprobe"):
            mine_to_folder(QUERIES, ITEMS, job, **SETTINGS)


def test_folders_from_before_duplicates_were_counted_are_read(job):
    for name in ("rejected_by_duplicate", "duplicates_mined", "copies_mined"):
        edit(job, ("report", name), KeyError)
    assert open_mined(job).report.duplicates_mined == 0
    assert open_mined(job).read().items.shape == (10, 2)
