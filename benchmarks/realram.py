"""RAM of real guests: raw dumps, from a folder or from guests that are booted for it, held in memory side by side."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import guests
from benchmarks.memory import allocate
from pagedup import Duplicates

BUILD = Path(__file__).resolve().parent.parent / "build"
Bytes = NDArray[np.uint8]
FRAME = 4096
MEMORY = "512M"
SPECS = [f"{work}{n}={work}" for n in (1, 2) for work in ("idle", "redis", "python", "web")]
LEAST_BYTES, LEAST_GUESTS = 2_000_000_000, 5


class NoRealMemory(RuntimeError):
    """There are no dumps, and none can be made here."""


@dataclass(frozen=True)
class RealMemory:
    """All guests' RAM in one array, guest after guest."""

    memory: Bytes
    guests: list[Bytes]


@dataclass(frozen=True)
class Composition:
    """Frames by what must be read of them; numbers of those alone, and of the others by their originals."""

    n_frames: int
    n_zero: int
    n_duplicate: int
    unique: NDArray[np.uint32]
    duplicates: NDArray[np.uint32]

    @classmethod
    def of(cls, found: Duplicates) -> Composition:
        """Count classes; a canonical frame that others share is a duplicate, too."""
        copies = np.bincount(found.canonical, minlength=found.n_frames)
        alone = (copies == 1) & ~found.zero
        unique = np.flatnonzero(alone).astype(np.uint32)
        duplicates = np.flatnonzero(~alone & ~found.zero).astype(np.uint32)
        duplicates = duplicates[np.argsort(found.canonical[duplicates], kind="stable")]
        return cls(found.n_frames, found.n_zero, len(duplicates), unique, duplicates)

    def __str__(self) -> str:
        zero, duplicate, unique = (100 * n / self.n_frames for n in (self.n_zero, self.n_duplicate, len(self.unique)))
        return f"{self.n_frames:,} frames: {zero:.1f} % zero, {duplicate:.1f} % duplicate, {unique:.1f} % unique"


def dumps(folder: Path | None) -> list[Path]:
    """The dumps in the folder; without one those of guests that are booted now, or were before."""
    if folder is None:
        folder = BUILD / "bench-dumps"
        if not (folder / "complete").exists():
            _boot(folder)
    found = sorted(folder.glob("*.raw"))
    if not found:
        raise NoRealMemory(f"{folder} has no *.raw")
    return found


def load(paths: list[Path], *, huge: bool) -> RealMemory:
    """Read the dumps into memory; whole frames of each."""
    sizes = [path.stat().st_size // FRAME * FRAME for path in paths]
    memory = allocate(sum(sizes), huge=huge)
    parts = np.split(memory, np.cumsum(sizes)[:-1])
    for path, part in zip(paths, parts, strict=True):
        with path.open("rb", buffering=0) as file:
            at = 0
            while at < part.nbytes:
                n = file.readinto(part.data[at:])
                if not n:
                    raise OSError(f"{path} became shorter")
                at += n
    return RealMemory(memory, parts)


def _boot(folder: Path) -> None:
    missing = [tool for tool in ("qemu-system-x86_64", "debootstrap") if not shutil.which(tool)]
    if os.geteuid() or missing:
        why = f"there is no {' and no '.join(missing)}" if missing else "this is not root"
        raise NoRealMemory(f"give --dumps DIR with raw dumps: guests cannot be booted here, {why}")
    state = BUILD / "bench-guests"
    try:
        if not guests.is_built(SPECS, state):
            guests.build(state)
        guests.up(SPECS, MEMORY, state)
        guests.dump(folder, state=state)
    except guests.GuestError as error:
        raise NoRealMemory(f"booting guests failed: {error}") from None
    finally:
        guests.down(state)
    (folder / "complete").touch()
