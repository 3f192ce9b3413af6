"""Layouts in files: .npz of plain arrays, which NumPy reads, too."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.layouts.layout import Layout, LayoutRegion, RegionKind
from pagedup.memory.whole_file import whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZIP_MAGIC = b"PK\x03\x04"
_FORMAT, _VERSION = "pagedup.layout", 1
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, OSError)


def save(layout: Layout, path: str) -> None:
    """See Layout.save."""
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
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(path, archive)
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno is None and str(error).startswith(path):
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise OSError(f"{path}: is no layout, or a broken one: {error}") from None


def _read(path: str, archive: zipfile.ZipFile) -> Layout:
    if _text(archive, "format") != _FORMAT:
        raise OSError(f"{path}: is no layout: its format is {_text(archive, 'format')!r}, not {_FORMAT!r}")
    version = _array(archive, "version")
    if version.shape or version.dtype.kind != "i" or int(version) != _VERSION:
        raise OSError(f"{path}: is a layout of version {version}; this pagedup reads version {_VERSION}")
    planes = _array(archive, "names", np.uint8, 2)
    if planes.shape[0] != 8:
        raise ValueError(f"names has the shape {planes.shape}; it must be (8, pages)")
    kinds, of = _array(archive, "region_kinds"), _array(archive, "region_of")
    if kinds.dtype.kind != "U" or of.dtype.kind != "U" or kinds.ndim != 1 or kinds.shape != of.shape:
        raise ValueError("region_kinds and region_of must be texts, as many of the one as of the other")
    return Layout(
        _text(archive, "name"),
        np.ascontiguousarray(planes.T).reshape(-1).view("<u8"),
        _array(archive, "regions", np.uint8, 1),
        tuple(LayoutRegion(RegionKind(kind), text) for kind, text in zip(kinds.tolist(), of.tolist(), strict=True)),
        _array(archive, "runs", np.uint64, 2),
        _text(archive, "space"),
    )


def _planes(names: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """First the lowest bytes of all names, then the next ones: neighbours that are alike compress to a tenth."""
    return np.ascontiguousarray(names.astype("<u8").view(np.uint8).reshape(-1, 8).T)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    array = _array(archive, name)
    if array.shape or array.dtype.kind != "U":
        raise ValueError(f"{name} must be a text")
    return str(array)


def _array(
    archive: zipfile.ZipFile, name: str, dtype: type[np.generic] | None = None, ndim: int | None = None
) -> NDArray[Any]:
    """One array, whose header is checked against what is stored before memory is given to it."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        shape, fortran, found = _header(file)
        if fortran or found.hasobject:
            raise ValueError(f"{name}: must be plain and in C order")
        n_items = 1
        for length in shape:
            n_items *= length
        if n_items * found.itemsize != entry.file_size - file.tell():
            raise ValueError(
                f"{name}: claims {n_items:,} items, and {entry.file_size - file.tell():,} bytes are stored"
            )
        if (dtype is not None and found != np.dtype(dtype)) or (ndim is not None and len(shape) != ndim):
            raise ValueError(
                f"{name}: is of type {found} with {len(shape)} dimensions; {np.dtype(dtype)} with {ndim} is right"
            )
        data = file.read()
        if len(data) != n_items * found.itemsize:
            raise ValueError(f"{name}: ends early")
        return np.frombuffer(data, found).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array of .npy version {version[0]}.{version[1]}; 1.0 is right")
    return np.lib.format.read_array_header_1_0(file)
