from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fastneg import storage
from fastneg.errors import FileFormatError
from fastneg.storage import SavedFolder, write_folder

ARRAYS = {"codes": np.arange(100), "none": np.zeros(0, np.float32)}
TEXTS = {"ids": pa.array(["a", "bä", ""], pa.large_string())}


def write(folder: Path, kind: str = "things", version: int = 1) -> None:
    write_folder(
        folder,
        call="save",
        kind=kind,
        version=version,
        arrays=ARRAYS,
        texts=TEXTS,
        facts={"num": 3},
    )


def saved(folder: Path) -> SavedFolder:
    return SavedFolder(folder, call="open", kind="things", version=1)


def read_all(folder: Path) -> None:
    made = saved(folder)
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

    for owner, name in ((np, "save"), (storage, "_put_in_place")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(FileFormatError, match="s cannot be written: No space left"):
                write(tmp_path / "s")
        assert [path.name for path in tmp_path.iterdir()] == ["s"]
        assert saved(tmp_path / "s").manifest["num"] == 3


@pytest.mark.parametrize(("name", "content", "message"), [
    ("manifest.json", None, "is not a saved folder: manifest.json: No such file"),
    ("manifest.json", b"{", "manifest.json is damaged"),
    ("manifest.json", b"[]", "does not hold things"),
    ("manifest.json", b'{"kind": "things", "version": 2}', "is of version 2; this fastneg reads"),
    ("manifest.json", b'{"kind": "things", "version": 1}', "it lists no arrays"),
    ("codes.npy", None, "codes.npy is damaged: No such file"),
    ("codes.npy", b"", "codes.npy is damaged"),
    ("codes.npy", b"half", "codes.npy is damaged"),
    ("codes.npy", b"other", "codes.npy is damaged: float64, shape .3,., is not what"),
    ("ids.arrow", None, "ids.arrow is damaged: .*No such file"),
    ("ids.arrow", b"", "ids.arrow is damaged"),
    ("ids.arrow", b"half", "ids.arrow is damaged"),
    ("ids.arrow", b"other", "ids.arrow is damaged: it is not what the manifest says"),
])  # fmt: skip
def test_damaged_folders(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
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
        read_all(folder)


def test_a_text_column_with_broken_offsets_crashes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "s")
    path = tmp_path / "s" / "ids.arrow"
    content = path.read_bytes()
    offsets = np.array([0, 1, 4, 4]).tobytes()
    assert offsets in content
    path.write_bytes(content.replace(offsets, np.array([0, 1, 10**12, 4]).tobytes()))
    with pytest.raises(FileFormatError, match=r"ids\.arrow is damaged"):
        saved(tmp_path / "s").text("ids")


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["kind"] == "things"
    assert manifest["arrays"]["codes"] == {"dtype": "<i8", "shape": [100]}
    assert manifest["texts"] == {"ids": 3}
