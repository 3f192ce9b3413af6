"""Layouts in files: .npz of plain arrays, which NumPy reads, too."""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.layouts.layout import MOST_REGIONS, Layout, LayoutRegion, RegionKind
from pagedup.memory.live.room import available_memory
from pagedup.memory.whole_file import whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZIP_MAGIC = b"PK\x03\x04"
_FORMAT, _VERSION = "pagedup.layout", 1
# What zipfile raises for a broken archive, and we for a broken array.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, ArithmeticError, EOFError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
# An array's header as np.save writes it for plain arrays. NumPy's own reader evaluates it as Python: what a hostile
# header makes of that is no end of exceptions and warnings.
_HEADER = re.compile(
    rb"\{'descr': '([<|][uiU][1-9][0-9]{0,8})', 'fortran_order': False,"
    rb" 'shape': \(((?:[0-9]{1,18},|[0-9]{1,18}(?:, [0-9]{1,18})+)?)\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
_MOST_HEADER = 1 << 10  # bytes
_AT_ONCE = 1 << 20  # bytes
_PER_BYTE = 3  # bytes of memory for each that is stored: what is read, turned round, and kept beside it


def save(layout: Layout, path: str) -> None:
    """See Layout.save."""
    _check_texts(layout)
    arrays: dict[str, Any] = {
        "format": np.array(_FORMAT),
        "version": np.array(_VERSION),
        "name": np.array(layout.name),
        "space": np.array(layout.space),
        "names": _planes(layout.names),
        "regions": layout.regions,
        "region_kinds": np.array([str(region.kind) for region in layout.region_table], np.str_),
        "region_of": np.array([region.of for region in layout.region_table], np.str_),
        "runs": layout.runs.astype("<u8"),
    }
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def is_layout(path: str) -> bool:
    """Whether the file at `path` is one that `save` may have written: a zip archive, told by its first bytes."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its other end
        return False
    with open(path, "rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def load(path: str) -> Layout:
    """See Layout.load."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: is no layout, as it is not a regular file")
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _read(archive)
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path}: is no layout, or a broken one: {error}") from None
        raise OSError(error.errno, error.strerror, path) from None
    except _BROKEN as error:
        raise OSError(f"{path}: is no layout, or a broken one: {error}") from None


def _read(archive: zipfile.ZipFile) -> Layout:
    if (found := _text(archive, "format")) != _FORMAT:
        raise ValueError(f"its format is {found!r}, not {_FORMAT!r}")
    (version,) = _array(archive, "version", np.dtype(np.int64), ()).reshape(-1).tolist()
    if version != _VERSION:
        raise ValueError(f"its version is {version}; this pagedup reads version {_VERSION}")
    kinds, of = _texts(archive, "region_kinds"), _texts(archive, "region_of")
    if len(kinds) != len(of):
        raise ValueError(f"region_kinds has {len(kinds):,} entries, and region_of {len(of):,}")
    regions = _array(archive, "regions", np.dtype(np.uint8), (None,))
    planes = _array(archive, "names", np.dtype(np.uint8), (8, len(regions)))
    return Layout(
        _text(archive, "name"),
        np.ascontiguousarray(planes.T).reshape(-1).view("<u8"),
        regions,
        tuple(LayoutRegion(RegionKind(kind), text) for kind, text in zip(kinds, of, strict=True)),
        _array(archive, "runs", np.dtype(np.uint64), (None, 2)),
        _text(archive, "space"),
    )


def _check_texts(layout: Layout) -> None:
    """ValueError for texts that an array of texts would not give back: NumPy drops zeros at their ends."""
    for text in (layout.name, layout.space, *(region.of for region in layout.region_table)):
        if text.endswith("\0"):
            raise ValueError(f"{text!r}: a text that ends in a zero character cannot be saved")


def _planes(names: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """First the lowest bytes of all names, then the next ones: neighbours that are alike compress to a tenth."""
    return np.ascontiguousarray(names.astype("<u8").view(np.uint8).reshape(-1, 8).T)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    (text,) = _decoded(name, _array(archive, name, None, ()))
    return text


def _texts(archive: zipfile.ZipFile, name: str) -> list[str]:
    array = _array(archive, name, None, (None,))
    if len(array) > MOST_REGIONS:
        raise ValueError(f"{name}: has {len(array):,} entries; at most {MOST_REGIONS:,} are possible")
    return _decoded(name, array)


def _decoded(name: str, array: NDArray[Any]) -> list[str]:
    if array.dtype.kind != "U":
        raise ValueError(f"{name}: is of type {array.dtype}; texts are right")
    array = array.reshape(-1)
    if array.size and int(array.view(np.uint32).max()) > 0x10FFFF:
        raise ValueError(f"{name}: holds what is no character")
    texts: list[str] = array.tolist()
    return texts


def _array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any] | None, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """One array of this type (None: texts) and shape (None: any length). It takes memory only for what is stored."""
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ValueError(f"it lacks the array {name}") from None
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: is compressed by method {entry.compress_type}; stored or deflated is right")
    with archive.open(entry) as file:
        found, lengths = _header(name, file)
        if dtype is not None and found != dtype:
            raise ValueError(f"{name}: is of type {found}; {dtype} is right")
        if len(lengths) != len(shape) or any(want not in (None, got) for want, got in zip(shape, lengths, strict=True)):
            wanted = ", ".join("any" if want is None else f"{want:,}" for want in shape)
            raise ValueError(f"{name}: has the shape {lengths}; ({wanted}) is right")
        size = entry.file_size - file.tell()
        if math.prod(lengths) * found.itemsize != size:
            raise ValueError(f"{name}: claims the shape {lengths}, and {size:,} bytes are stored")
        if size * _PER_BYTE > (available := available_memory()):
            raise ValueError(
                f"{name}: {size * _PER_BYTE:,} bytes of memory are needed, and {available:,} are available"
            )
        data = np.empty(size, np.uint8)  # memory is given to it as it is written
        at = 0
        while part := file.read(_AT_ONCE):
            data[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        if at != size:
            raise ValueError(f"{name}: ends after {at:,} of {size:,} bytes")
        return data.view(found).reshape(lengths)


def _header(name: str, file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type and shape of a plain array in C order."""
    start = file.read(len(_MAGIC) + 2)
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > _MOST_HEADER:
        raise ValueError(f"{name}: is no array of .npy version 1.0")
    match = _HEADER.fullmatch(file.read(length))
    if match is None:
        raise ValueError(f"{name}: its header is not that of a plain array in C order")
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError:
        raise ValueError(f"{name}: has a type that does not exist: {match[1].decode()}") from None
    return dtype, tuple(int(length) for length in match[2].replace(b",", b" ").split())
