"""The C functions of native.c, compiled when first used."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SOURCE = Path(__file__).with_name("native.c")
_READERS = ("baseline", "avx2", "avx512")


class CompileError(RuntimeError):
    """The C compiler failed."""


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "native.so"
        command = [*shlex.split(os.environ.get("CC", "cc")), "-O3", "-fPIC", "-shared", "-o", str(target), str(_SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise CompileError(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            raise CompileError(f"{shlex.join(command)}: {done.stderr.strip()}")
        library = ctypes.CDLL(str(target))
    for name in _READERS:
        if hasattr(library, f"read_{name}"):
            reader = getattr(library, f"read_{name}")
            reader.argtypes, reader.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_uint64
    library.touch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    library.touch.restype = ctypes.c_uint64
    library.read_frames.argtypes = [ctypes.c_void_p, *library.touch.argtypes]
    library.read_frames.restype = ctypes.c_uint64
    library.fill.argtypes, library.fill.restype = library.touch.argtypes, None
    library.chase.argtypes, library.chase.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
    library.add.argtypes, library.add.restype = [ctypes.c_size_t], ctypes.c_uint64
    return library


def readers() -> list[str]:
    """The ways of reading that this CPU has."""
    library = _library()
    wider = [name for name in _READERS[1:] if hasattr(library, f"has_{name}")]
    return ["baseline", *(name for name in wider if getattr(library, f"has_{name}")())]


def read(memory: NDArray[np.uint8], reader: str) -> None:
    """Read all bytes once."""
    assert memory.nbytes % 512 == 0 and memory.ctypes.data % 64 == 0
    getattr(_library(), f"read_{reader}")(memory.ctypes.data, memory.nbytes)


def fastest_reader(memory: NDArray[np.uint8]) -> str:
    """The way of reading that takes the least time on this memory, the best of five tries each."""
    best: dict[str, float] = {}
    for _ in range(5):
        for reader in readers():
            start = time.perf_counter()
            read(memory, reader)
            best[reader] = min(best.get(reader, 1e9), time.perf_counter() - start)
    return min(best, key=best.__getitem__)


def touch(memory: NDArray[np.uint8], frames: NDArray[np.uint32], frame_size: int) -> None:
    """Read one word of each of these frames, in this order."""
    _library().touch(memory.ctypes.data, frames.ctypes.data, len(frames), frame_size)


def read_frames(memory: NDArray[np.uint8], frames: NDArray[np.uint32], frame_size: int, reader: str) -> None:
    """Read all bytes of these frames, in this order."""
    loop = ctypes.cast(getattr(_library(), f"read_{reader}"), ctypes.c_void_p)
    _library().read_frames(loop, memory.ctypes.data, frames.ctypes.data, len(frames), frame_size)


def fill(memory: NDArray[np.uint8], seeds: NDArray[np.uint64], frame_size: int) -> None:
    """Fill frames with random bytes: equal if and only if their seeds are, zero where the seed is 0."""
    assert memory.nbytes == len(seeds) * frame_size
    _library().fill(memory.ctypes.data, seeds.ctypes.data, len(seeds), frame_size)


def chase(start: int, steps: int) -> int:
    """Follow a multiple of 8 pointers from this address, each after the one before; the address where it ends."""
    assert steps % 8 == 0
    return int(_library().chase(start, steps))


def add(times: int) -> int:
    """Add 1 a multiple of 8 times, each after the one before: a cycle of the CPU's clock each; the sum."""
    assert times % 8 == 0
    return int(_library().add(times))
