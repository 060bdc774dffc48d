"""Interactions and files: saved folders, and files that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from tests.forging import put_array, renew, set_fact
from tests.test_interactions import frame


@pytest.mark.parametrize("kind", ["codes", "integers", "texts"])
def test_save_and_open(tmp_path: Path, kind: str) -> None:
    users = {"codes": [0, 1, 0], "integers": [9, 4, 9], "texts": ["ä", "b", "ä"]}[kind]
    made = Interactions.from_pairs(users, [5, 5, 6], weights=[1, 0, 2], times=[1.5, 2, 3])
    made.save(tmp_path / "deep" / "folder")
    opened = Interactions.open(tmp_path / "deep" / "folder")
    assert opened.fingerprint() == made.fingerprint()
    assert opened.user_ids.tolist() == made.user_ids.tolist()
    for name in (
        "row_weights",
        "row_times",
        "positive_items",
        "positive_weights",
        "positive_times",
        "item_users",
    ):
        assert getattr(opened, name).tolist() == getattr(made, name).tolist()
    base = opened.row_users
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    opened.append(users, [5, 7, 8], times=[4, 5, 6]).save(tmp_path / "deep" / "folder")
    assert Interactions.open(tmp_path / "deep" / "folder").num_rows == 6
    assert opened.num_rows == 3  # the old files live on under their maps
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    made = Interactions.from_codes([0], [0])
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    with pytest.raises(FileFormatError, match="file is a file; give a folder"):
        made.save(tmp_path / "file")
    with pytest.raises(FileFormatError, match="cannot be written: Not a directory"):
        made.save(tmp_path / "file" / "below")
    with pytest.raises(FileFormatError, match="holds other files"):
        made.save(tmp_path / "other")
    assert (tmp_path / "other" / "precious").exists()


@pytest.mark.parametrize(
    ("name", "position", "value", "fault"),
    [
        ("row_items", 0, 99, "codes beyond 0..2"),
        ("row_users", 0, -1, "codes beyond 0..2"),
        ("positive_items", 0, 77, "do not ascend within a user, or are out of range"),
        ("positive_items", 0, -5, "do not ascend within a user, or are out of range"),
        ("positive_indptr", 1, 1000, "does not ascend"),
    ],
)
def test_damaged_folders_reach_no_kernel(
    tmp_path: Path, name: str, position: int, value: int, fault: str
) -> None:
    Interactions.from_codes([0, 1, 2, 0], [0, 1, 2, 1]).save(tmp_path / "s")
    array = np.load(tmp_path / "s" / f"{name}.npy")
    array[position] = value
    np.save(tmp_path / "s" / f"{name}.npy", array)
    with pytest.raises(FileFormatError, match=rf"{name}\.npy is damaged: its checksum is not"):
        Interactions.open(tmp_path / "s")
    with pytest.raises(FileFormatError, match=f"{name} is damaged: .*{fault}"):
        Interactions.open(tmp_path / "s", verify=False)
    renew(tmp_path / "s", f"{name}.npy")
    with pytest.raises(FileFormatError, match=f"{name} is damaged: .*{fault}"):
        Interactions.open(tmp_path / "s")


_I8, _F4, _F8 = np.int64, np.float32, np.float64


@pytest.mark.parametrize(("name", "array"), [
    ("user_ids", np.array([0.5, 1, 2])), ("user_ids", np.array([1, 2, 3], "i4")),
    ("user_ids", np.array([1, 2, 3], ">i8")), ("user_ids", np.zeros((3, 2), _I8)),
    ("user_ids", np.array(["a", "b", "c"])), ("user_ids", np.array([b"a", b"b", b"c"])),
    ("user_ids", np.array([True, False, True])), ("user_ids", np.array([1, 2, 3], "M8[s]")),
    ("user_ids", np.array([1, 2])), ("user_ids", np.array(3)),
    ("row_users", np.array([0, 1, 2, 0], ">i8")), ("row_users", np.array([0, 1, 2], _I8)),
    ("row_users", np.array([0, 1, 2, 3], _I8)), ("row_users", np.array([0, 1, 2, 2**62], _I8)),
    ("row_items", np.array([[0, 1, 2, 1]], _I8)), ("row_items", np.zeros(0, _I8)),
    ("row_times", np.array([np.nan, 1, 2, 3])), ("row_times", np.array([1, 2, 3, 4], "i4")),
    ("row_times", np.array([1, 2, 3, 4], ">f8")), ("row_times", np.array([1, 2, 3], _F8)),
    ("row_weights", np.array([np.nan, 1, 1, 1], _F4)), ("row_weights", np.ones(4)),
    ("positive_times", np.array([True] * 4)), ("positive_times", np.array([1, 2, 3, 4], _I8)),
    ("positive_times", np.array([1, 2, 3], _F8)),
    ("positive_weights", np.array([np.inf, 1, 1, 1], _F4)), ("positive_weights", np.ones(4)),
    ("positive_weights", np.ones(3, _F4)),
    ("positive_indptr", np.array([0, 4, 4], _I8)), ("positive_indptr", np.array([0, 3, 2, 4], _I8)),
    ("positive_indptr", np.array([0, 2**62, 4, 4], _I8)),
    ("positive_indptr", np.array([[0, 2, 3, 4]], _I8)), ("positive_indptr", np.array(4)),
    ("positive_items", np.array([0, 1, 1, 3], _I8)),
    ("positive_items", np.array([0, 0, 1, 2], _I8)),
    ("positive_items", np.array([0, 1, 1, 2], np.uint64)),
    ("positive_items", np.array([0, 1, 1, 2], np.int32)),
])  # fmt: skip
@pytest.mark.parametrize("verify", [True, False])
def test_forged_arrays_reach_no_kernel(
    tmp_path: Path, name: str, array: np.ndarray, verify: bool
) -> None:
    made = Interactions.from_pairs(
        [7, 8, 9, 7], [5, 6, 7, 6], times=[1.0, 2, 3, 4], weights=[1, 1, 1, 1]
    )
    made.save(tmp_path / "s")
    put_array(tmp_path / "s", name, array)
    with pytest.raises(FileFormatError, match=r"Interactions\.open: .*is damaged"):
        Interactions.open(tmp_path / "s", verify=verify)


@pytest.mark.parametrize("value", [1.5, "x", None, True, [1], 2**80, -3, 0, 2, float("nan")])
@pytest.mark.parametrize("name", ["num_users", "num_items"])
def test_forged_sizes(tmp_path: Path, name: str, value: object) -> None:
    Interactions.from_codes([0, 1, 2], [0, 1, 2]).save(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    (tmp_path / "s" / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(FileFormatError, match=r"manifest\.json is damaged: its checksum"):
        Interactions.open(tmp_path / "s")
    if value == value:  # a manifest that fastneg writes has no NaN
        set_fact(tmp_path / "s", name, value)
        with pytest.raises(FileFormatError, match=r"Interactions\.open: .*is damaged"):
            Interactions.open(tmp_path / "s")


def test_a_fingerprint_is_computed(tmp_path: Path) -> None:
    made = Interactions.from_codes([0, 1, 2], [0, 1, 2])
    made.save(tmp_path / "s")
    set_fact(tmp_path / "s", "fingerprint", "0" * 32)
    opened = Interactions.open(tmp_path / "s")
    assert opened.fingerprint() == made.fingerprint()
    put_array(tmp_path / "s", "row_items", np.array([0, 2, 1]))
    assert Interactions.open(tmp_path / "s").fingerprint() != made.fingerprint()


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "headed.csv").write_text("user,item\n")
    (tmp_path / "gap.csv").write_text("user,item\n1,2\n,3\n")
    frame().to_parquet(tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "users.txt").write_text("1\n2\n")
    for name, match in (
        ("empty.csv", "empty.csv is empty"),
        ("headed.csv", "headed.csv has no rows"),
        ("gap.csv", r"gap.csv: user\[1\] is empty \(1 of 2 are\)"),
        ("missing.csv", "missing.csv cannot be read: no such file"),
        ("cut.parquet", "cut.parquet cannot be read: "),
        ("x.parquet", "x.parquet has no column 'user'; its columns are who, what, stars, when"),
        ("users.txt", "users.txt names users and no items"),
    ):
        with pytest.raises(FastnegError, match=match) as caught:
            Interactions.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileFormatError, match="is not a saved folder"):
        Interactions.open(tmp_path)


def test_a_folder_without_ids_is_read_like_others_by_its_codes(tmp_path: Path) -> None:
    known = Interactions.from_pairs([5, 6, 7], [1, 2, 3])
    Interactions.from_codes([0, 2], [1, 1], num_users=3, num_items=3).save(tmp_path / "codes")
    read = Interactions.read(tmp_path / "codes", like=known)
    assert read.decode_users(read.row_users).tolist() == [5, 7]
    assert read.decode_items(read.row_items).tolist() == [2, 2]
    Interactions.from_codes([3], [0], num_users=4, num_items=3).save(tmp_path / "more")
    with pytest.raises(FastnegError, match=r"users\[0\] = 3 is not a code in 0..2"):
        Interactions.read(tmp_path / "more", like=known)
    Interactions.from_pairs([7, 9], [3, 3]).save(tmp_path / "ids")
    read = Interactions.read(tmp_path / "ids", like=known)
    assert read.row_users.tolist() == [2, 3]
