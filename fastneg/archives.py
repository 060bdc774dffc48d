"""Compressed files, archives and NumPy's files, read with a bound on what they unpack to.

A file of a kilobyte can unpack to terabytes, and an array's header can ask for any memory: neither
is used before it was compared with the bytes that are there.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastneg.checks import AnyArray
from fastneg.errors import FastnegError, FileFormatError, one_line
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")

FREE_BYTES = 256 << 20  # what any file may unpack to
RATIO = 200  # beyond that, this many times its size; tables of text reach 20 to 50 times
_BLOCK = 1 << 20
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
# what zipfile, zlib and NumPy's header parser raise for bytes that are not what they should be
DAMAGE = (
    OSError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError,
    RuntimeError, SyntaxError, MemoryError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip


def allowance(size: int) -> int:
    """The bytes that a file of this size may unpack to."""
    return max(FREE_BYTES, RATIO * size)


def _too_large(label: str, most: int, size: int) -> FileFormatError:
    return FileFormatError(
        f"{label} unpacks to more than {most:,} bytes, over {RATIO} times its size ({size:,}); if "
        "that is right, unpack it and give the unpacked file"
    )


class _Bounded(io.RawIOBase):
    """A stream that raises once more than ``most`` bytes have come out of it."""

    def __init__(self, stream: Any, most: int, label: str, size: int) -> None:
        super().__init__()
        self._stream, self._left = stream, most
        self._error = _too_large(label, most, size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except DAMAGE as error:
            raise OSError(one_line(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise self._error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def compression_of(path: Path) -> str | None:
    """How a file is compressed, from its first bytes (a suffix can be wrong); None: it is not."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def zip_member(path: Path, *, call: str) -> str:
    """The name of the one file in a zip.

    Raises:
        FileFormatError: no zip, or one that holds several files or none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except DAMAGE as error:
        raise FileFormatError(f"{call}: {path} is a damaged zip: {one_line(error)}") from error
    names = [name for name in names if not _is_hidden(name)]
    if len(names) != 1:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise FileFormatError(
            f"{call}: {path} holds {len(names)} files{f' ({listed})' if names else ''}; unpack it "
            "and give one of them"
        )
    return names[0]


def read_zip_member(source: Path | bytes, member: str | None = None) -> bytes:
    """One file of a zip (None: the first), of a size within ``allowance``.

    Raises:
        ValueError: it is no zip, a damaged one, has no such file, or a too large one.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            entry = file.infolist()[0] if member is None else file.getinfo(member)
            if entry.file_size > allowance(size):
                raise _too_large(entry.filename, allowance(size), size)
            return file.read(entry)
    except FastnegError:
        raise
    except DAMAGE as error:
        raise ValueError(one_line(error)) from error


def _is_hidden(name: str) -> bool:
    """What macOS and other programs put beside the file."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def open_unpacked(path: Path, *, call: str) -> io.BufferedReader:
    """The bytes of a file, unpacked if it is compressed (gzip, bz2, xz, zstd, lz4, a zip of one).

    Raises:
        FileFormatError: several files in a zip; while reading, more bytes than ``allowance`` says.
        OSError, ValueError: while reading, damaged bytes.
    """
    kind = compression_of(path)
    if kind is None:
        return path.open("rb")
    size = path.stat().st_size
    stream: Any
    if kind == "zip":
        member = zip_member(path, call=call)
        try:
            archive = zipfile.ZipFile(path)
            stream = archive.open(member)
        except DAMAGE as error:
            reason = one_line(error)
            raise FileFormatError(f"{call}: {path}: {member} cannot be read: {reason}") from error
    elif kind == "xz":
        stream = lzma.LZMAFile(path)  # noqa: SIM115 - closed with what reads it
    else:
        stream = pa.input_stream(str(path), compression=kind)
    bounded = _Bounded(stream, allowance(size), f"{call}: {path}", size)
    return io.BufferedReader(bounded, _BLOCK)


def inflate(data: bytes, size: int) -> bytes:
    """What zlib packed, if it is ``size`` bytes; never more than one byte beyond is unpacked.

    Raises:
        ValueError: it is another number of bytes, or damaged.
    """
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"it does not unpack to {size} bytes")
    return raw


# NumPy's files --------------------------------------------------------------------------------


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, Any, int]:
    """(shape, Fortran order, dtype, where the data begin) of an .npy of ``size`` bytes.

    Raises:
        ValueError: no header, one that holds Python objects, or one that does not fit the size.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"its format is version {version[0]}.{version[1]}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read from files")
    start = stream.tell()
    if min(shape, default=0) < 0:
        raise ValueError(f"its header says shape {shape}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != size - start or (dtype.itemsize == 0 and math.prod(shape) > 1):
        raise ValueError(
            f"its header says shape {shape} of {dtype} ({needed:,} bytes), and it holds "
            f"{size - start:,}"
        )
    return shape, fortran, dtype, start


def _read_array(stream: IO[bytes], size: int) -> AnyArray:
    shape, fortran, dtype, _ = _read_header(stream, size)
    array = np.empty(math.prod(shape), dtype)
    left = array.view(np.uint8).data if array.nbytes else memoryview(b"")
    while left:
        read = stream.readinto(left)  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{len(left):,} bytes are missing")
        left = left[read:]
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def load_npz(path: Path, *, call: str) -> dict[str, AnyArray]:
    """All arrays of an .npz; no pickle, no more memory than its size allows.

    Raises:
        FileFormatError: not an .npz, a damaged one, or one that unpacks to more than ``allowance``.
    """
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is not a zip file, or a truncated one")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > allowance(size):
                raise _too_large(f"{call}: {path}", allowance(size), size)
            arrays = {}
            for entry in entries:
                with archive.open(entry) as stream:
                    array = _read_array(stream, entry.file_size)
                    stream.read(1)  # at the end the checksum is compared
                arrays[entry.filename.removesuffix(".npy")] = array
            return arrays
    except FastnegError:
        raise
    except DAMAGE as error:
        raise FileFormatError(
            f"{call}: {path} is not a readable .npz: {one_line(error)}"
        ) from error


def load_npy(path: Path, *, call: str, mapped: bool = True) -> AnyArray:
    """The array of an .npy, memory-mapped or read; no pickle.

    Raises:
        FileFormatError: no such file, or not an .npy of the size that its header says.
    """
    try:
        if mapped:
            return map_npy(path)
        with path.open("rb") as file:
            return _read_array(file, os.fstat(file.fileno()).st_size)
    except DAMAGE as error:
        raise FileFormatError(
            f"{call}: {path} is not a readable .npy: {one_line(error)}"
        ) from error


def map_npy(path: Path) -> AnyArray:
    """The array of an .npy, memory-mapped and read-only (an empty array cannot be mapped).

    Raises:
        one of ``DAMAGE``: no such file, or not an .npy of the size that its header says.
    """
    with path.open("rb") as file:
        shape, fortran, dtype, start = _read_header(file, os.fstat(file.fileno()).st_size)
        if 0 in shape or dtype.itemsize == 0:
            return np.empty(shape, dtype)
        order: Any = "F" if fortran else "C"
        return np.memmap(file, dtype, "r", start, shape, order)
