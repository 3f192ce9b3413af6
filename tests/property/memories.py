"""Hypothesis strategies for memory full of duplicates, near-duplicates and zeros, held in every kind of buffer."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st

from pagedup import Extent, ZeroExtent

RUNGS = ["", "all", "avx2"]


@contextmanager
def rung(disabled: str) -> Iterator[None]:
    """Turn instruction sets off."""
    with patch.dict(os.environ, {"DEDUPCORE_DISABLE_CPU": disabled}):
        yield


def places(size: int) -> st.SearchStrategy[int]:
    """Offsets at which a single byte is most likely to be overlooked."""
    edges = {0, 7, 8, size - 1, size - 8}
    for block in range(0, size, max(256, size // 32)):
        edges |= {block, block - 1}
    edges |= {63, 64, size - 64, size - 65}
    return st.one_of(st.sampled_from(sorted(at for at in edges if 0 <= at < size)), st.integers(0, size - 1))


def contents(size: int) -> st.SearchStrategy[bytes]:
    """A frame: one of three bases with up to two bytes changed."""

    def build(base: int, changes: list[tuple[int, int]]) -> bytes:
        memory = bytearray(size) if base == 0 else bytearray(np.random.default_rng(base).bytes(size))
        for at, change in changes:
            memory[at] ^= change
        return bytes(memory)

    return st.builds(
        build, st.integers(0, 2), st.lists(st.tuples(places(size), st.sampled_from([1, 0x80])), max_size=2)
    )


def alphabet(size: int) -> st.SearchStrategy[list[bytes]]:
    """Few contents, so that most frames have duplicates; each also with one more byte changed."""

    def vary(some: list[bytes], at: list[int]) -> list[bytes]:
        changed = [bytes(byte ^ (i == offset) for i, byte in enumerate(some[0])) for offset in at[: 8192 // size]]
        return [bytes(size), *some, *changed]

    return st.builds(vary, st.lists(contents(size), min_size=1, max_size=5), st.lists(places(size), max_size=4))


def as_bytes(data: bytes) -> Any:
    return data


def as_bytearray(data: bytes) -> Any:
    return bytearray(data)


def as_unaligned_view(data: bytes) -> Any:
    return memoryview(bytearray(b"\xff" * 3 + data + b"\xff"))[3:-1]


def as_read_only_view(data: bytes) -> Any:
    return memoryview(b"\xff" * 5 + data).toreadonly()[5:]


def as_mapping(data: bytes) -> Any:
    if not data:
        return b""
    mapping = mmap.mmap(-1, len(data))
    mapping[:] = data
    return mapping


def as_words(data: bytes) -> Any:
    return np.frombuffer(data, np.uint64)


def as_unaligned_floats(data: bytes) -> Any:
    holder = bytearray(b"\xff" + data)
    return np.ndarray((len(data) // 4,), np.float32, holder, 1)


def as_table(data: bytes) -> Any:
    return np.frombuffer(data, np.int16).reshape(-1, 4)


def as_cast_view(data: bytes) -> Any:
    return memoryview(data).cast("I")


Holder = Callable[[bytes], Any]
HOLDERS: list[Holder] = [
    as_bytes,
    as_bytearray,
    as_unaligned_view,
    as_read_only_view,
    as_mapping,
    as_words,
    as_unaligned_floats,
    as_table,
    as_cast_view,
]


@dataclass(frozen=True)
class Guest:
    """What find_duplicates is given, and what the oracle is told."""

    memory: Any
    extents: list[tuple[int, bytes]]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For Hypothesis: the bytes themselves nobody can read."""
        extents = [f"({address:#x}, {len(data)} bytes, {shorter(data)})" for address, data in self.extents]
        printer.text(f"Guest({type(self.memory).__name__}: {', '.join(extents)})")


def shorter(data: bytes) -> str:
    """Where the bytes are that differ from the one 256 bytes before."""
    before = bytes(min(256, len(data))) + data[:-256]
    differ = [f"{at}: {byte:#x}" for at, (byte, old) in enumerate(zip(data, before, strict=True)) if byte != old]
    return "{" + ", ".join(differ[:40]) + (", ..." if len(differ) > 40 else "") + "}"


@st.composite
def guests(draw: st.DrawFn, size: int, some: list[bytes], max_frames: int) -> Guest:
    """A plain buffer, or extents with gaps between them."""

    def frames(least: int) -> bytes:
        numbers = draw(st.lists(st.integers(0, len(some) - 1), min_size=least, max_size=max_frames))
        return b"".join(some[number] for number in numbers)

    if draw(st.booleans()):
        data = frames(0)
        return Guest(draw(st.sampled_from(HOLDERS))(data), [(0, data)])
    n_extents = draw(st.integers(0, 5))
    parts: list[Extent | ZeroExtent] = []
    extents: list[tuple[int, bytes]] = []
    top = (1 << 64) // size - n_extents * (max_frames + 3)  # so high that the last may end at 2**64
    at = draw(st.sampled_from([0, 1, 3, 512, top]))
    for _ in range(n_extents):
        at += draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
        if draw(st.integers(0, 3)):
            data = frames(0)
            parts.append(Extent(at * size, draw(st.sampled_from(HOLDERS))(data)))
        else:
            data = bytes(size * draw(st.integers(0, max_frames)))
            parts.append(ZeroExtent(at * size, len(data)))
        extents.append((at * size, data))
        at += len(data) // size
    return Guest(parts, extents)


@dataclass(frozen=True)
class Case:
    """One call, with all that may vary."""

    frame_size: int
    guests: list[Guest]
    domains: list[str] | None
    threads: int
    rung: str

    def memory(self) -> Any:
        return [guest.memory for guest in self.guests]


@st.composite
def cases(draw: st.DrawFn, sizes: list[int], max_frames: int, max_guests: int = 4) -> Case:
    size = draw(st.sampled_from(sizes))
    some = draw(alphabet(size))
    drawn = draw(st.lists(guests(size, some, max_frames), max_size=max_guests))
    # An empty list of extents alone reads as no guest; here it is one guest without memory.
    domains = draw(st.none() | st.lists(st.sampled_from("ab"), min_size=len(drawn), max_size=len(drawn)))
    return Case(size, drawn, domains, draw(st.integers(1, 4)), draw(st.sampled_from(RUNGS)))
