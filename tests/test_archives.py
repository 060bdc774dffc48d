"""Archives unpack within bounds, and a header is compared with the bytes that are there."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pytest

from fastneg import archives
from fastneg.archives import allowance, inflate, load_npy, load_npz, open_unpacked
from fastneg.errors import CheckpointError, FileFormatError
from fastneg.samplers.streaming import StreamingPopularitySampler

TEXT = b"user,item\n1,2\n" * 50
KINDS = ["gzip", "bz2", "xz", "zstd", "lz4", "zip"]


def packed(kind: str, data: bytes) -> bytes:
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._x.csv", "x")
            archive.writestr("folder/x.csv", data)
        return buffer.getvalue()
    if kind in ("zstd", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, kind) as stream:
            stream.write(data)
        return bytes(sink.getvalue())
    return {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_compression_is_known_by_its_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "whatever"
    path.write_bytes(packed(kind, TEXT))
    with open_unpacked(path, call="call") as stream:
        assert stream.read() == TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(archives, "RATIO", 10)
    path = tmp_path / "bomb"
    path.write_bytes(packed(kind, bytes(40 << 20)))
    with (
        open_unpacked(path, call="call") as stream,
        pytest.raises(FileFormatError, match=r"call: .*bomb unpacks to more than [\d,]+ bytes"),
    ):
        read_all(stream, 4 << 20)


def read_all(stream: IO[bytes], most: int) -> bytes:
    """All bytes; the test fails where more than ``most`` come out."""
    data = b""
    while block := stream.read(1 << 16):
        data += block
        assert len(data) <= most
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_no_shorter_one(tmp_path: Path, kind: str) -> None:
    whole = packed(kind, np.random.default_rng(0).bytes(3_000))
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((FileFormatError, *archives.DAMAGE)):
        unpacked(tmp_path / "cut")


def unpacked(path: Path) -> bytes:
    with open_unpacked(path, call="call") as stream:
        return stream.read()


def test_a_zip_of_several_files_names_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(FileFormatError, match=r"holds 2 files \(a.csv, b.csv\); unpack it"):
        open_unpacked(tmp_path / "x.zip", call="call")


def test_inflate_stops_at_the_size_that_is_expected() -> None:
    assert inflate(zlib.compress(b"abc"), 3) == b"abc"
    for data, size in ((zlib.compress(bytes(1 << 24)), 8), (zlib.compress(b"abc"), 4),
                       (zlib.compress(b"abc")[:-2], 3), (zlib.compress(b"abc") + b"x", 3),
                       (b"junk", 4)):  # fmt: skip
        with pytest.raises(ValueError, match=r"unpack|header"):
            inflate(data, size)


def test_a_state_unpacks_to_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = StreamingPopularitySampler(10)
    state = sampler.state_dict()
    sampler.load_state_dict(state)
    state["counts"] = base64.b64encode(zlib.compress(bytes(1 << 24))).decode()
    monkeypatch.setattr(zlib, "decompress", None)  # what has no bound is not called
    with pytest.raises(CheckpointError, match="counts is not that of 10 items"):
        sampler.load_state_dict(state)


# ---------------------------------------------------------------- NumPy's files


@pytest.mark.parametrize("array", [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(b"csr"),
    np.zeros((0, 4), "f4"), np.array(["a", "bcd"]), np.arange(3).astype(">i4"),
    np.array([1, 2], "M8[s]"),
])  # fmt: skip
def test_arrays_as_numpy_reads_them(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", one=array, two=array)
    found = [load_npy(tmp_path / "a.npy", call="call", mapped=mapped) for mapped in (True, False)]
    found += load_npz(tmp_path / "a.npz", call="call").values()
    assert len(found) == 4
    for one in found:
        assert one.dtype == array.dtype
        assert one.shape == array.shape
        assert one.tobytes() == array.tobytes()


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    encoded = text.encode("latin-1") + b"\n"
    size = len(encoded).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + encoded


WHOLE = "{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}"
HEADERS = [
    WHOLE.replace("(4,)", "(5,)"), WHOLE.replace("(4,)", "(3,)"), WHOLE.replace("(4,)", "(-4,)"),
    WHOLE.replace("(4,)", "(1000000000000,)"), WHOLE.replace("(4,)", f"({2**63}, {2**63})"),
    WHOLE.replace("(4,)", "4"), WHOLE.replace("<i8", "<i4"), WHOLE.replace("<i8", "|O"),
    WHOLE.replace("<i8", "nonsense"), WHOLE[:-1], "(" * 900, "{'a': ", "'\x00'", "\xff\xfe", "[]",
    "x" * 20_000, WHOLE.replace("(4,)", "(" + "9" * 5_000 + ",)"), WHOLE.replace("<i8", "|V0"),
]  # fmt: skip


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 9)])
@pytest.mark.parametrize("text", HEADERS, ids=[text[:60] for text in HEADERS])
def test_no_damaged_header_asks_for_memory(
    tmp_path: Path, text: str, version: tuple[int, int]
) -> None:
    data = header(text, version) + np.arange(4).tobytes()
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("data.npy", data)
    for mapped in (True, False):
        with pytest.raises(FileFormatError, match=r"call: .*a\.npy is not a readable \.npy: "):
            load_npy(tmp_path / "a.npy", call="call", mapped=mapped)
    with pytest.raises(
        FileFormatError, match=r"call: .*a\.npz is not a readable \.npz: "
    ) as caught:
        load_npz(tmp_path / "a.npz", call="call")
    assert "\n" not in str(caught.value)


def test_an_npz_that_unpacks_to_more_than_it_may(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", data=np.zeros(40 << 20, np.int64))
    size = (tmp_path / "bomb.npz").stat().st_size
    assert allowance(size) < 320 << 20
    with pytest.raises(FileFormatError, match="unpacks to more than 268,435,456 bytes"):
        load_npz(tmp_path / "bomb.npz", call="call")


def test_any_byte_of_an_npz_turned(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", data=np.arange(30), shape=np.array([3, 10]))
    whole = (tmp_path / "a.npz").read_bytes()
    for place in range(len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 0x41
        (tmp_path / "b.npz").write_bytes(raw)
        try:
            arrays = load_npz(tmp_path / "b.npz", call="call")
        except FileFormatError:
            continue
        for array in arrays.values():  # a name, a date: never other numbers
            assert array.tolist() in (list(range(30)), [3, 10])
    for size in range(0, len(whole), 7):
        (tmp_path / "b.npz").write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            load_npz(tmp_path / "b.npz", call="call")
