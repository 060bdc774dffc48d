from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastneg import files, storage
from fastneg.errors import FileFormatError
from fastneg.storage import SavedFolder, write_folder
from tests.forging import forge, renew

ARRAYS = {"codes": np.arange(100), "none": np.zeros(0, np.float32)}
TEXTS = {"ids": pa.array(["a", "bä", ""], pa.large_string())}


def write(folder: Path, kind: str = "things", version: int = 2) -> None:
    write_folder(
        folder,
        call="save",
        kind=kind,
        version=version,
        arrays=ARRAYS,
        texts=TEXTS,
        facts={"num": 3},
    )


def saved(folder: Path, *, verify: bool = True) -> SavedFolder:
    return SavedFolder(folder, call="open", kind="things", version=2, verify=verify)


def read_all(folder: Path, *, verify: bool = True) -> None:
    made = saved(folder, verify=verify)
    made.array("codes")
    made.text("ids")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "s")
    write(tmp_path / "s")  # replaces itself
    made = saved(tmp_path / "s")
    assert made.manifest["num"] == 3
    array = made.array("codes")
    assert array is not None
    assert array.tolist() == list(range(100))
    assert not array.flags.writeable
    assert made.array("none").shape == (0,)  # type: ignore[union-attr]
    assert made.array("other") is None
    assert made.text("other") is None
    assert made.text("ids").to_pylist() == ["a", "bä", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_failed_write_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((files, "write_pieces"), (storage, "_put_in_place")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(FileFormatError, match="s cannot be written: No space left"):
                write(tmp_path / "s")
        assert [path.name for path in tmp_path.iterdir()] == ["s"]
        assert saved(tmp_path / "s").manifest["num"] == 3


@pytest.mark.parametrize(("name", "content", "message"), [
    ("manifest.json", None, "is not a saved folder: manifest.json: No such file"),
    ("manifest.json", b"{", "manifest.json is damaged"),
    ("manifest.json", b"[]", "manifest.json is damaged: it is no mapping"),
    ("manifest.json", b"[" * 100_000, "manifest.json is damaged"),
    ("manifest.json", b"\xff\xfe{", "manifest.json is damaged"),
    ("manifest.json", b'{"kind": "things", "version": 3}', "is of version 3; this fastneg reads"),
    ("manifest.json", b'{"kind": "things", "version": 2}', "manifest.json is damaged: its checks"),
    ("codes.npy", None, "codes.npy is damaged: No such file"),
    ("codes.npy", b"", "codes.npy is damaged: it has 0 bytes, not the 928 that were written"),
    ("codes.npy", b"half", "codes.npy is damaged: it has 868 bytes, not the 928"),
    ("codes.npy", b"other", "codes.npy is damaged: it has 152 bytes"),
    ("ids.arrow", None, "ids.arrow is damaged: .*No such file"),
    ("ids.arrow", b"", "ids.arrow is damaged"),
    ("ids.arrow", b"half", "ids.arrow is damaged"),
    ("ids.arrow", b"other", "ids.arrow is damaged"),
])  # fmt: skip
@pytest.mark.parametrize("verify", [True, False])
def test_damaged_folders(
    tmp_path: Path, name: str, content: bytes | None, message: str, verify: bool
) -> None:
    folder = tmp_path / "s"
    write(folder)
    path = folder / name
    if content is None:
        path.unlink()
    elif content == b"half":
        path.write_bytes(path.read_bytes()[:-60])
    elif content == b"other" and name == "codes.npy":
        np.save(path, np.zeros(3))
    elif content == b"other":
        other = pa.table({"ids": pa.array(["a"], pa.large_string())})
        with pa.ipc.new_file(str(path), other.schema) as writer:
            writer.write_table(other)
    else:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"open: .*{message}"):
        read_all(folder, verify=verify)


@pytest.mark.parametrize("name", ["codes.npy", "ids.arrow", "manifest.json"])
def test_one_flipped_bit_anywhere_is_seen(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "s"
    write(folder)
    content = (folder / name).read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        (folder / name).write_bytes(changed)
        with pytest.raises(FileFormatError, match="open: "):
            saved(folder)
    (folder / name).write_bytes(content)
    read_all(folder)


def test_what_verify_leaves_out(tmp_path: Path) -> None:
    write(tmp_path / "s")
    path = tmp_path / "s" / "codes.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"codes\.npy is damaged: its checksum is not that"):
        saved(tmp_path / "s")
    array = saved(tmp_path / "s", verify=False).array("codes")
    assert array is not None
    assert int(array[-1]) == 98
    text = tmp_path / "s" / "ids.arrow"
    content = bytearray(text.read_bytes())
    content[len(content) // 2] ^= 1
    text.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"ids\.arrow is damaged: its checksum"):
        saved(tmp_path / "s", verify=False)


def test_a_folder_of_before_checksums(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    old = {**manifest, "version": 1}
    del old["files"], old["sha256"]
    (folder / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(FileFormatError, match="of version 1, which has no checksums; open it with"):
        saved(folder)
    read_all(folder, verify=False)
    (folder / "codes.npy").write_bytes((folder / "codes.npy").read_bytes()[:-8])
    with pytest.raises(FileFormatError, match=r"shape \(100,\) of int64 \(800 bytes\), and it"):
        read_all(folder, verify=False)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/hosts", "a/b", ".hidden", "..", "", "a\\b", "a\x00"]
)
@pytest.mark.parametrize("part", ["arrays", "texts"])
def test_a_manifest_that_names_files_outside(tmp_path: Path, part: str, name: str) -> None:
    write(tmp_path / "s")
    np.save(tmp_path / "out.npy", np.arange(3))
    entry: Any = {"dtype": "<i8", "shape": [3]} if part == "arrays" else 3
    forge(tmp_path / "s", lambda manifest: manifest[part].__setitem__(name, entry))
    for verify in (True, False):
        with pytest.raises(FileFormatError, match=r"open: .*is not a plain file name"):
            saved(tmp_path / "s", verify=verify)


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write(folder)
    (tmp_path / "out.npy").write_bytes((folder / "codes.npy").read_bytes())
    (folder / "codes.npy").rename(folder / "own.npy")
    (folder / "codes.npy").symlink_to("own.npy")
    read_all(folder)
    (tmp_path / "link").symlink_to(folder)
    read_all(tmp_path / "link")
    (folder / "codes.npy").unlink()
    (folder / "codes.npy").symlink_to(tmp_path / "out.npy")
    with pytest.raises(FileFormatError, match=r"open: .*codes\.npy is a link out of the folder"):
        saved(folder)
    (folder / "codes.npy").unlink()
    os.mkfifo(folder / "codes.npy")
    with pytest.raises(FileFormatError, match=r"open: .*codes\.npy is not a regular file"):
        saved(folder)


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m["files"].pop("codes.npy"), "the manifest has no checksum of it"),
    (lambda m: m.pop("files"), "the manifest has no checksum of it"),
    (lambda m: m["files"].__setitem__("codes.npy", {"bytes": "928", "sha256": ""}), "no checksum"),
    (lambda m: m.__setitem__("arrays", [1]), "it lists no arrays"),
    (lambda m: m["arrays"].__setitem__("codes", 3), "is not what the manifest says"),
    (lambda m: m["arrays"].__setitem__("codes", {"dtype": "<i8"}), "is not what the manifest says"),
    (lambda m: m["texts"].__setitem__("ids", "3"), "it is not what the manifest says"),
])  # fmt: skip
def test_a_forged_manifest(tmp_path: Path, change: Any, message: str) -> None:
    write(tmp_path / "s")
    forge(tmp_path / "s", change)
    with pytest.raises(FileFormatError, match=message):
        read_all(tmp_path / "s")


@pytest.mark.parametrize("array", [
    np.array([{}], dtype=object), np.zeros((3, 2)), np.array(5), np.asfortranarray(np.ones((2, 2))),
])  # fmt: skip
def test_a_forged_array_is_what_it_says_or_refused(tmp_path: Path, array: np.ndarray) -> None:
    write(tmp_path / "s")
    np.save(tmp_path / "s" / "codes.npy", array, allow_pickle=True)
    renew(tmp_path / "s", "codes.npy")
    with pytest.raises(FileFormatError, match=r"codes\.npy is damaged: "):
        read_all(tmp_path / "s")
    said = {"dtype": array.dtype.str, "shape": list(array.shape)}
    forge(tmp_path / "s", lambda manifest: manifest["arrays"].__setitem__("codes", said))
    if array.dtype == object:
        with pytest.raises(FileFormatError, match="it holds Python objects"):
            read_all(tmp_path / "s")
    else:
        np.testing.assert_array_equal(saved(tmp_path / "s").array("codes"), array)


@pytest.mark.parametrize("header", [
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (-100,)}",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (2**62,)}",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807, 2)}",
    b"{'descr': 3, 'fortran_order': False, 'shape': (3,)}",
    b"{" * 3000, b"", b"{'descr'", b"1",
])  # fmt: skip
def test_a_forged_header_crashes_nothing(tmp_path: Path, header: bytes) -> None:
    write(tmp_path / "s")
    text = header.ljust(118 - len(header) % 64 if len(header) > 118 else 118) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(800)
    (tmp_path / "s" / "codes.npy").write_bytes(content)
    renew(tmp_path / "s", "codes.npy")
    for verify in (True, False):
        with pytest.raises(FileFormatError, match=r"codes\.npy is damaged: "):
            read_all(tmp_path / "s", verify=verify)


def test_a_text_column_with_broken_offsets_crashes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "s")
    path = tmp_path / "s" / "ids.arrow"
    content = path.read_bytes()
    offsets = np.array([0, 1, 4, 4]).tobytes()
    assert offsets in content
    path.write_bytes(content.replace(offsets, np.array([0, 1, 10**12, 4]).tobytes()))
    renew(tmp_path / "s", "ids.arrow")
    with pytest.raises(FileFormatError, match=r"ids\.arrow is damaged"):
        saved(tmp_path / "s").text("ids")


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["kind"] == "things"
    assert manifest["arrays"]["codes"] == {"dtype": "<i8", "shape": [100]}
    assert manifest["texts"] == {"ids": 3}
